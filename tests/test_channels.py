"""Pictures of one plane and of four, the whole way: folders and arrays, training, ONNX, prediction, the server."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from safetensors.torch import load_file
from starlette.testclient import TestClient

from export.contract import Contract
from export.options import ExportOptions
from export.parity import choose_pictures
from export.pipeline import export_model
from export.source import make_random_network
from serve.bench.measure.opened import real_pictures
from serve.bench.measure.picture import measure_picture
from serve.core.service import Limits
from serve.core.slot import Slot
from serve.engine import open_engine
from serve.options import ServeOptions
from serve.web.app import create_app
from train.options import TrainOptions
from train.session import train_model
from zoo.measure.timing import Schedule
from zoo.model.spec import Preprocessing
from zoo.model.variants import find_variant
from zoo.weights.checkpoint import read_card

Zoo = Callable[..., Any]
CLASSES = ("dark", "grey", "light")
LEVELS = (40, 128, 215)
ORDERS = {1: "grey", 4: "RGBA"}
SIZES = {"epochs": 4, "image_size": 24, "batch_size": 12, "device": "cpu", "workers": 0, "learning_rate": 1e-2}


def pixels_of(label: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    """Of one plane the level is the class; of four that of the last one, and the colours are noise."""
    pixels = rng.integers(0, 256, (26, 30, channels), np.uint8)
    pixels[..., -1] = np.clip(rng.normal(LEVELS[label], 20, pixels.shape[:2]), 0, 255).astype(np.uint8)
    return pixels


def save(pixels: np.ndarray, path: Path, number: int) -> None:
    """One plane as 8 bits, as 16 and as a JPEG in turn; four as PNG and as TIFF."""
    if pixels.shape[-1] == 4:
        Image.fromarray(pixels).save(path.with_suffix((".png", ".tif")[number % 2]))
    elif number % 3 == 0:
        Image.fromarray(pixels[..., 0]).save(path.with_suffix(".jpg"), quality=95)
    else:
        grey = pixels[..., 0] if number % 3 == 1 else pixels[..., 0].astype(np.uint16) * 257
        Image.fromarray(grey).save(path.with_suffix(".png"))


@dataclass(frozen=True)
class Made:
    """A folder of pictures with so many planes, the same pictures as arrays, a run on the folder, and its export."""

    channels: int
    folder: Path
    arrays: Path
    run: Path
    onnx: Path


@pytest.fixture(scope="module", params=[1, 4], ids=lambda channels: f"{channels}-planes")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    channels, root = request.param, tmp_path_factory.mktemp(f"planes-{request.param}")
    rng = np.random.default_rng(channels)
    found: dict[str, list[np.ndarray]] = {"train": [], "val": []}
    for split, count in (("train", 24), ("val", 6)):
        for number in range(count):
            for label, name in enumerate(CLASSES):
                folder = root / "pictures" / split / name
                folder.mkdir(parents=True, exist_ok=True)
                found[split].append(pixels_of(label, channels, rng))
                save(found[split][-1], folder / f"{number:02d}", number)
    arrays = {}
    for split, pictures in found.items():
        stacked = np.stack(pictures)  # one plane as (N, H, W), as people have it
        arrays[f"x_{split}"] = stacked[..., 0] if channels == 1 else stacked
        arrays[f"y_{split}"] = np.arange(len(pictures)) % 3
    np.savez(root / "arrays.npz", classes=np.array(CLASSES), **arrays)
    run = root / "run"
    data = str(root / "pictures")
    train_model(TrainOptions(model="tiny", data=data, channels=channels, out=run, **SIZES))
    onnx = export_model(ExportOptions(model=str(run), out=root / "exported")).onnx
    return Made(channels, root / "pictures", root / "arrays.npz", run, onnx)


def test_the_checkpoint_says_its_planes_and_learns_from_them(made: Made) -> None:
    card = read_card(made.run / "checkpoint.safetensors")
    assert (card.preprocessing.channels, card.variant.channels) == (made.channels, made.channels)
    assert card.preprocessing.color_order == ORDERS[made.channels]
    stem = load_file(made.run / "checkpoint.safetensors")["stem.conv.weight"]
    assert stem.shape[1] == made.channels
    lines = [json.loads(line) for line in (made.run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["val_top1"] > 0.9  # of four planes only the last one tells the classes apart


def test_the_page_shows_what_the_network_is_fed(made: Made) -> None:
    page = (made.run / "report.html").read_text()
    assert "What the network is fed" in page
    assert "cannot be shown" not in page
    assert "no longer readable" not in page
    assert ("fourth plane" in page) == (made.channels == 4)


def test_the_graph_takes_the_planes_and_says_so(made: Made) -> None:
    session = onnxruntime.InferenceSession(made.onnx, providers=["CPUExecutionProvider"])
    taken = session.get_inputs()[0]
    assert (taken.type, taken.shape[1:]) == ("tensor(uint8)", [24, 24, made.channels])
    passport = json.loads(made.onnx.with_suffix(".json").read_text())
    assert passport["contract"]["preprocessing"]["color_order"] == ORDERS[made.channels]
    assert len(passport["contract"]["preprocessing"]["mean"]) == made.channels
    assert passport["parity"]["onnx"]["passed"]


def test_folder_and_arrays_are_evaluated_alike(made: Made, zoo: Zoo) -> None:
    found = [
        json.loads(zoo("evaluate", artifact, "--data", data, "--json").out)
        for artifact in (made.run, made.onnx)
        for data in (made.folder, made.arrays)
    ]
    assert all(one["top1"] > 0.9 and one["n"] == 18 for one in found)
    assert max(one["loss"] for one in found) - min(one["loss"] for one in found) < 0.01  # a third of grey is JPEG


def test_the_server_answers_what_predict_does(made: Made, zoo: Zoo) -> None:
    engine = open_engine(ServeOptions(engine=str(made.onnx), device="cpu"))
    limits = Limits(max_body_bytes=1_000_000, timeout_s=60.0, max_in_flight=8, decode_threads=1, drain_s=10.0)
    rgb = io.BytesIO()
    Image.new("RGB", (20, 20), (200, 10, 10)).save(rgb, "PNG")
    try:
        with TestClient(create_app(Slot(engine), limits)) as client:
            engine.batcher.warmed.result(60)
            for name in CLASSES:
                picture = next((made.folder / "val" / name).glob("*.png"))
                answer = client.post("/predict", content=picture.read_bytes()).json()
                assert answer["predictions"][0]["class"] == name
                predicted = json.loads(zoo("predict", made.onnx, picture, "--json").out)
                assert answer["predictions"] == predicted["predictions"]
            assert client.get("/info").json()["preprocessing"]["color_order"] == ORDERS[made.channels]
            assert len(client.get("/examples").json()) == (2 if made.channels == 1 else 0)  # none has a fourth plane
            refused = client.post("/predict", content=rgb.getvalue())
            assert refused.status_code == (200 if made.channels == 1 else 400)
            assert made.channels == 1 or "no fourth plane" in refused.json()["error"]
    finally:
        engine.close(10)


def test_arrays_train_to_the_same_planes(made: Made, tmp_path: Path) -> None:
    options = TrainOptions(model="tiny", data=str(made.arrays), channels=made.channels, out=tmp_path / "run", **SIZES)
    outcome = train_model(options)
    assert read_card(outcome.checkpoint).preprocessing.channels == made.channels
    assert (outcome.result.top1 or 0.0) > 0.9


def test_a_run_begins_from_a_run_of_its_planes(made: Made, tmp_path: Path, zoo: Zoo) -> None:
    """MODEL's own planes are the default, and they are not changed into any others."""
    sizes = ("--epochs", 1, "--image-size", 24, "--batch-size", 12, "--device", "cpu", "--workers", 0)
    done = zoo("train", made.run, "--data", made.folder, "--recipe", "finetune", *sizes, "-o", tmp_path / "on")
    assert done.code == 0, done.err
    assert "same classes." in done.err
    assert read_card(tmp_path / "on" / "checkpoint.safetensors").variant.channels == made.channels
    refused = zoo("train", made.run, "--data", made.folder, "--channels", 5 - made.channels)
    assert refused.code == 1
    assert f"take {ORDERS[made.channels]} pictures" in refused.err


def test_random_weights_and_latency_have_pictures_of_the_planes(made: Made, zoo: Zoo, tmp_path: Path) -> None:
    preprocessing = Preprocessing(image_size=24).with_channels(made.channels)
    shape = (2, 24, 24, made.channels)
    assert choose_pictures(None, preprocessing, count=2).pictures.shape == shape
    contract = Contract(model="tiny", classes=CLASSES, preprocessing=preprocessing)
    assert real_pictures(contract, 2)[0].shape == shape
    timed = measure_picture(preprocessing, Schedule(duration_ms=1.0, rounds=1))
    assert timed.to_dict().get("format", "JPEG") == timed.format == ("PNG" if made.channels == 4 else "JPEG")
    network = make_random_network(find_variant("tiny").with_channels(made.channels), preprocessing)
    assert network.variant.channels == made.channels


def test_shown_counts_are_those_of_the_network(made: Made, zoo: Zoo) -> None:
    shown = json.loads(zoo("show", made.run, "--json").out)
    assert shown["stages"][0]["in_channels"] == made.channels
    typed = json.loads(zoo("show", "tiny", "--channels", made.channels, "--json").out)
    assert typed == shown
    stem = load_file(made.run / "checkpoint.safetensors")["stem.conv.weight"]
    assert shown["stages"][0]["num_params"] == stem.numel() + 2 * stem.shape[0]


def test_shards_of_grey_pictures_train_and_those_of_four_planes_are_refused(
    made: Made, zoo: Zoo, tmp_path: Path
) -> None:
    packed = zoo("data", "pack", made.folder, "-o", tmp_path / "shards", "--size", 24)
    assert packed.code == 0, packed.err
    options = ("--channels", made.channels, "--epochs", 4, "--image-size", 24, "--batch-size", 12, "--workers", 0)
    trained = zoo("train", "tiny", "--data", tmp_path / "shards", *options, "-o", tmp_path / "run", "--device", "cpu")
    of_arrays = zoo("data", "pack", made.arrays, "-o", tmp_path / "others", "--size", 24)
    if made.channels == 1:
        assert trained.code == 0, trained.err
        assert of_arrays.code == 0, of_arrays.err
    else:
        assert "no fourth plane" in trained.err
        assert "no fourth plane" in of_arrays.err


def test_a_check_reads_the_planes(made: Made, zoo: Zoo) -> None:
    for data in (made.folder, made.arrays):
        found = json.loads(zoo("data", "check", data, "--channels", made.channels, "--json").out)
        assert (found["broken"], found["duplicates_within"]) == ([], [])
    other = zoo("data", "check", made.folder, "--channels", 5 - made.channels)
    assert other.code == (1 if made.channels == 1 else 0)  # grey lacks a fourth plane; RGBA can be grey


def test_a_teacher_sees_the_same_planes(made: Made, tiny_run: Path, zoo: Zoo, tmp_path: Path) -> None:
    arrays = tmp_path / "digits.npz"
    digits = np.zeros((20, 8, 8, made.channels), np.uint8)
    np.savez(arrays, x=digits, y=np.arange(20) % 10)
    done = zoo("train", "tiny", "--data", arrays, "--channels", made.channels, "--teacher", tiny_run, "--epochs", 4)
    assert done.code == 1
    assert f"takes RGB pictures, and the student {ORDERS[made.channels]}" in done.err
