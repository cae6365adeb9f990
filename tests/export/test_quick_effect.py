"""What quick pictures do to an artifact's answers: measured on JPEGs, kept in the passport, wanted by the server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto
from PIL import Image

from export.contract import Contract
from export.options import ExportOptions
from export.passport import QuickCard, read_passport, write_passport
from export.pipeline import export_model
from export.quick_effect import measure_quick
from export.signature import require_signature
from serve.engine import open_engine
from serve.options import ServeOptions
from zoo.data.open import open_val
from zoo.data.pictures import Pictures
from zoo.errors import ArtifactError, DataError
from zoo.model.spec import Preprocessing

Zoo = Callable[..., Any]


@pytest.fixture
def jpegs(tmp_path: Path) -> Path:
    """Noise that is to be made ten times smaller, as JPEGs of two of the digits' classes, and a PNG among them."""
    rng = np.random.default_rng(0)
    for name in ("3", "7"):
        folder = tmp_path / "jpegs" / "val" / name
        folder.mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).resize((320, 320)).save(folder / f"{number}.jpg", quality=90)
    Image.fromarray(pixels).save(folder / "plain.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    return tmp_path / "jpegs"


@pytest.fixture
def exported(in_folder: Path, tiny_checkpoint: Path, exports_this_graph: ModelProto) -> Path:
    """tiny.onnx with its passport, in the working folder."""
    return export_model(ExportOptions(model=str(tiny_checkpoint), parity=False)).onnx


def serve(onnx: Path, said: list[str]) -> None:
    options = ServeOptions(engine=str(onnx), device="cpu", instances=1, pictures="quick")
    open_engine(options, said.append).close()


def test_what_was_measured_is_in_the_passport_and_the_server_says_it(exported: Path, jpegs: Path, zoo: Zoo) -> None:
    said: list[str] = []
    with pytest.raises(ArtifactError, match=r"tiny\.onnx was not measured") as refused:
        serve(exported, said)
    assert f"`zoo evaluate {exported} --pictures quick`" in refused.value.hint and not said
    before = json.loads(exported.with_suffix(".json").read_text())
    answer = zoo("evaluate", exported, "--data", jpegs, "--pictures", "quick", "--json")
    assert answer.code == 0 and "Left out" in answer.err and "broken.jpg" in answer.err
    card = QuickCard.from_dict(json.loads(answer.out))
    assert (card.artifact, card.n, card.num_quick, card.metric) == ("tiny.onnx", 7, 6, "top1")
    exact = json.loads(zoo("evaluate", exported, "--data", jpegs, "--json").out)
    assert card.exact == pytest.approx(exact["top1"])
    after = json.loads(exported.with_suffix(".json").read_text())
    assert after == before | {"quick": card.to_dict()}
    assert read_passport(exported).quick == card
    serve(exported, said)
    assert said == [f"Quick pictures: {card.summary()}."]
    assert card.summary() in zoo("inspect", exported).out


def test_a_changed_answer_is_counted(jpegs: Path) -> None:
    runner: Any = Alternating()  # every batch is answered the exact way first, then the quick way
    card = measure_quick(runner, open_val(str(jpegs)), batch_size=2)
    assert (card.n, card.num_quick, card.agreement) == (7, 6, 0.0)
    assert (card.exact, card.quick) == (pytest.approx(3 / 7), pytest.approx(4 / 7))  # three of class 3, four of 7


def test_pictures_that_are_never_quick_say_nothing(exported: Path, zoo: Zoo) -> None:
    answer = zoo("evaluate", exported, "--data", "digits", "--pictures", "quick")
    assert answer.code == 1 and "is a JPEG" in answer.err and "Traceback" not in answer.err
    assert "quick" not in json.loads(exported.with_suffix(".json").read_text())


def test_what_has_no_passport_of_its_own_is_refused_before_the_work(
    exported: Path, jpegs: Path, tiny_checkpoint: Path, zoo: Zoo
) -> None:
    measure = ("--data", jpegs, "--pictures", "quick")
    assert "no passport" in zoo("evaluate", tiny_checkpoint, *measure).err
    exported.write_bytes(exported.read_bytes() + b"\0")
    assert "does not describe tiny.onnx" in zoo("evaluate", exported, *measure).err
    exported.with_suffix(".json").unlink()
    assert "has no passport" in zoo("evaluate", exported, *measure).err


def test_options_without_effect_are_refused(exported: Path, zoo: Zoo) -> None:
    for wrong, said in ((("--pictures", "quick", "--flip"), "--flip"), (("--sign", "key.pem"), "--pictures quick")):
        answer = zoo("evaluate", exported, *wrong)
        assert answer.code == 2 and "no effect" in answer.err and said in answer.err


def test_a_signed_passport_is_signed_anew_or_left_alone(exported: Path, jpegs: Path, zoo: Zoo, in_folder: Path) -> None:
    pytest.importorskip("cryptography", reason="needs pip install 'zoo[sign]'")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from export.signature import load_signing_key, sign_passport

    key, pem = Ed25519PrivateKey.generate(), serialization.Encoding.PEM
    Path("key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    Path("pub.pem").write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    sign_passport(exported.with_suffix(".json"), load_signing_key(Path("key.pem")))
    measure = ("evaluate", exported, "--data", jpegs, "--pictures", "quick")
    answer = zoo(*measure)
    assert answer.code == 1 and "is signed" in answer.err and "--sign KEY.pem" in answer.err
    require_signature(str(exported), Path("pub.pem"))
    assert zoo(*measure, "--sign", "key.pem").code == 0
    require_signature(str(exported), Path("pub.pem"))
    assert read_passport(exported).quick


def test_random_weights_have_no_accuracy_to_lose(exported: Path) -> None:
    passport = read_passport(exported)
    write_passport(exported.with_suffix(".json"), replace(passport, random_weights=True))
    said: list[str] = []
    serve(exported, said)
    assert said == ["Quick pictures: nothing is known of their effect, and the weights are random."]


def test_a_version_in_a_repository_has_its_own_record(exported: Path, jpegs: Path, zoo: Zoo) -> None:
    version = Path("models/tiny/1")
    version.mkdir(parents=True)
    for suffix in (".onnx", ".json"):
        shutil.copy(exported.with_suffix(suffix), version / f"model{suffix}")
    assert zoo("evaluate", version / "model.onnx", "--data", jpegs, "--pictures", "quick").code == 0
    assert read_passport(version / "model.onnx").quick and not read_passport(exported).quick


class Alternating:
    """A runner of two classes that says the first one of every odd batch, and the second one of every even one."""

    artifact, backend, device, max_batch_size = "fake.onnx", "fake", "CPU", None
    contract = Contract(model="fake", classes=("3", "7"), preprocessing=Preprocessing(image_size=8))

    def __init__(self) -> None:
        self.calls = 0

    def infer(self, pictures: Any) -> Any:
        self.calls += 1
        return np.tile(np.float32([1, 0] if self.calls % 2 else [0, 1]), (len(pictures), 1))


def test_of_several_labels_it_is_their_precision(jpegs: Path) -> None:
    runner: Any = Alternating()
    runner.contract = replace(runner.contract, thresholds=(0.6, 0.6))
    pictures: Pictures = open_val(str(jpegs))
    card = measure_quick(runner, pictures)
    assert card.metric == "map" and card.agreement == 0.0
    with pytest.raises(DataError, match="answers one class"):
        measure_quick(Alternating(), replace(pictures, targets=pictures.all_targets()))
