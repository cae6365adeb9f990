from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.contract import Contract
from export.graph import export_onnx
from zoo.machine import cuda_driver
from zoo.model.efficientnet import EfficientNet
from zoo.model.variants import find_variant

Zoo = Callable[..., "object"]
BRIEF = ("--duration-s", 0.01, "--warmup-ms", 0, "--rounds", 3, "--device", "cpu", "-o", "results")


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real graph of `tiny` with random weights and ten classes."""
    variant = find_variant("tiny")
    contract = Contract(model="tiny", classes=tuple("0123456789"), preprocessing=variant.preprocessing)
    path = tmp_path_factory.mktemp("exported") / "tiny.onnx"
    onnx.save(export_onnx(EfficientNet(variant, 10), contract, checkpoint={}), path)
    return path


def test_latency_of_a_real_graph(zoo: Zoo, in_folder: Path, tiny_onnx: Path) -> None:
    answer = zoo("bench", "latency", tiny_onnx, "--batch-size", 1, "--batch-size", 3, *BRIEF, "--json")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)  # nothing but JSON on stdout
    assert (result["format"], result["kind"], result["name"]) == ("zoo-result-1", "latency", "tiny.onnx")
    (kept,) = (in_folder / "results").glob("latency-tiny-onnx-*.json")
    assert json.loads(kept.read_text()) == result
    assert [row["batch_size"] for row in result["data"]["rows"]] == [1, 3]
    for row in result["data"]["rows"]:
        assert row["latency"]["n"] >= 10
        assert row["latency"]["min_ms"] <= row["latency"]["p50_ms"] <= row["latency"]["p99_ms"]
        assert np.isfinite(row["pictures_per_second"])
    assert result["data"]["artifacts"][0]["num_classes"] == 10
    assert str(tiny_onnx.parent) not in answer.out
    assert "checking the answers" in answer.err


def test_a_graph_beside_its_checkpoint(zoo: Zoo, in_folder: Path, tiny_onnx: Path, tiny_run: Path) -> None:
    answer = zoo("bench", "latency", tiny_onnx, tiny_run / "checkpoint.safetensors", "--batch-size", 1, *BRIEF)
    assert answer.code == 0, answer.err
    assert "tiny.onnx" in answer.out
    # Their sizes are named, because they differ: the run was trained smaller than `tiny` is by itself.
    assert "Beside tiny.onnx (40 px), checkpoint.safetensors (36 px) is" in answer.out


# PyTorch needs no graph, and isolated stages no whole network: what is left is the command.
QUICK = ("--on", "torch", "--by", "isolated")


def test_stages_then_a_report(zoo: Zoo, in_folder: Path, known_peaks: None) -> None:
    answer = zoo("bench", "stages", "tiny", "--image-size", 32, "--batch-size", 2, *QUICK, *BRIEF, "--json")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    assert result["name"] == "tiny-32px-torch-b2-fp32"
    assert [row["index"] for row in result["data"]["rows"]] == [1, 2, 3]
    for row in result["data"]["rows"]:
        assert row["winner"] in ("mbconv", "fused_mbconv", "even", "unclear")
        assert row["mbconv"]["latency"]["n"] >= 3
        assert row["engine"].startswith("torch ")
    assert result["data"]["quiet"] in (True, False)  # and either exits with 0
    assert answer.err.count("stage ") >= 3
    table = zoo("bench", "stages", "tiny", "--image-size", 32, *QUICK, *BRIEF)
    assert "Fused-MBConv" in table.out
    assert "zoo bench report results" in table.err

    made = zoo("bench", "report", "results", "-o", "page/report.html", "--json")
    assert made.code == 0, made.err
    said = json.loads(made.out)
    assert said["report"] == "page/report.html"
    assert (in_folder / "page" / "report.html").read_text().startswith("<!doctype html>")
    assert json.loads((in_folder / "page" / "report.json").read_text())["headlines"] == said["headlines"]
    plain = zoo("bench", "report", "results", "-o", "page/report.html")
    assert "In PyTorch, eager on " in plain.out
    assert "page/report.html" in plain.out


def test_a_checkpoints_row_can_be_asked_too(zoo: Zoo, in_folder: Path, tiny_run: Path, known_peaks: None) -> None:
    checkpoint = tiny_run / "checkpoint.safetensors"
    answer = zoo("bench", "stages", checkpoint, "--image-size", 16, *QUICK, *BRIEF, "--json")
    assert json.loads(answer.out)["data"]["model"] == "tiny"


def test_the_default_engine_is_the_one_that_ships_and_is_named(
    zoo: Zoo, in_folder: Path, one_stage: str, known_peaks: None
) -> None:
    answer = zoo("bench", "stages", one_stage, "--image-size", 16, "--by", "isolated", *BRIEF)
    assert answer.code == 0, answer.err
    assert "In ONNX Runtime on the processor on " in answer.out
    (kept,) = (in_folder / "results").glob("stages-one-16px-ort-cpu-*.json")
    assert all("CPUExecutionProvider" in row["engine"] for row in json.loads(kept.read_text())["data"]["rows"])


def test_several_results_are_a_list(zoo: Zoo, in_folder: Path, known_peaks: None) -> None:
    asked = ("--se", "paper", "--se", "none", *QUICK)
    answer = zoo("bench", "stages", "tiny", "--image-size", 16, *asked, *BRIEF, "--json")
    assert [result["data"]["se"] for result in json.loads(answer.out)] == ["paper", "none"]
    assert len(list((in_folder / "results").glob("stages-*.json"))) == 2


@pytest.mark.parametrize(
    ("arguments", "problem", "hint"),
    [
        (("stages", "efficientnetv2_small"), "Unknown model", "zoo list"),
        (("latency", "no-such.onnx"), "no-such.onnx", "zoo export"),
        (("latency", "notes.txt"), "There is no file or folder notes.txt", "zoo export"),
        (("report",), "There is no result benchmarks", "zoo bench stages"),
        (("report", "empty"), "empty holds no results", "zoo bench stages"),
        (("report", "foreign"), "not a result of `zoo bench`", "Take it out"),
        (("stages", "tiny", "--precision", "bf16", "--device", "cpu"), "not measured in bf16", "fp16"),
        (("stages", "tiny", "--map", "9", "--device", "cpu"), "--map 9", "1 to 3"),
        (("stages", "resnet50"), "no MBConv stages", "zoo bench latency"),
        (("fusion", "--no-inference", "--no-training"), "nothing to time", "Leave one"),
    ],
)
def test_mistakes_end_in_one_line_and_a_hint(
    zoo: Zoo, in_folder: Path, arguments: tuple[str, ...], problem: str, hint: str
) -> None:
    (in_folder / "empty").mkdir()
    (in_folder / "foreign").mkdir()
    (in_folder / "foreign" / "package.json").write_text('{"name": "left-pad"}')
    answer = zoo("bench", *arguments)
    assert answer.code == 1
    assert problem in answer.err
    assert hint in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""
    assert sorted(path.name for path in in_folder.iterdir()) == ["empty", "foreign"]


@pytest.mark.skipif(cuda_driver() is not None, reason="this machine has a GPU")
@pytest.mark.parametrize("command", ["latency", "stages"])
def test_cuda_without_a_gpu_is_an_error_not_a_processor(
    zoo: Zoo, in_folder: Path, tiny_onnx: Path, command: str
) -> None:
    answer = zoo("bench", command, tiny_onnx if command == "latency" else "tiny", "--device", "cuda")
    assert answer.code == 1
    assert "GPU" in answer.err
    assert "--device cpu" in answer.err
    assert not list(in_folder.iterdir())


def test_help_is_quick_to_load() -> None:
    loaded = "import sys, serve.bench.cli; print([m for m in ('torch', 'onnxruntime', 'numpy') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_a_checkpoint_at_several_sizes(zoo: Zoo, in_folder: Path, tiny_run: Path) -> None:
    sizes = ("--image-size", 24, "--image-size", 40, "--image-size", 24, "--batch-size", 1)  # each once
    answer = zoo("bench", "latency", tiny_run / "checkpoint.safetensors", *sizes, *BRIEF, "--json")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    assert [row["image_size"] for row in result["data"]["rows"]] == [24, 40]
    artifacts = result["data"]["artifacts"]
    assert [one["artifact"] for one in artifacts] == [
        "checkpoint.safetensors at 24 px",
        "checkpoint.safetensors at 40 px",
    ]
    assert all("onnxruntime" in one["backend"] for one in artifacts)
    assert result["data"]["comparisons"] == []  # of two sizes neither is the other's baseline
    assert "--image-size 24 --image-size 40 --image-size 24" in result["environment"]["command"]
    torch = zoo("bench", "latency", tiny_run / "checkpoint.safetensors", *sizes, "--backend", "torch", *BRIEF, "--json")
    assert all("torch" in one["backend"] for one in json.loads(torch.out)["data"]["artifacts"])
    page = zoo("bench", "report", "results", "-o", "report.html")
    assert page.code == 0, page.err
    assert "p50 over the size of the pictures" in (in_folder / "report.html").read_text()
    large = zoo("bench", "latency", tiny_run / "checkpoint.safetensors", "--image-size", 4000, *BRIEF)
    assert large.code == 1
    assert "capped" in large.err and "--image-size 480" in large.err


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("latency", "tiny.onnx", "--rate", 10), 1, "--rate has no effect"),
        (("latency", "tiny.onnx", "--scenario", "poisson"), 2, "single_stream"),
        (("latency", "tiny.onnx", "--scenario", "server", "--rate", 0), 2, "--rate"),
        (("latency", "tiny.onnx", "--scenario", "server", "--rate", 1e12), 2, "--rate"),
        (("latency", "tiny.onnx", "--rounds", 2), 2, "--rounds"),
        (("latency", "tiny.onnx", "-o", ""), 2, "the path is empty"),
        (("zoo", "b0", "--batch-size", 10**9), 1, "1,000,000,000 pictures of 224 px at once"),
        (("stages", "tiny", "--batch-size", 10**9), 1, "GB at least"),
        (("fusion", "--train-batch-size", 10**9), 1, "GB at least"),
        (("latency-table", "--space", "small", "--batch-size", 10**9), 1, "GB at least"),
        (("latency", "tiny.onnx", "--idle-gap", "--driver", "loadgen"), 1, "--idle-gap"),
        (("compare", "one.json"), 2, "AFTER.json"),
        (("compare", "one.json", "two.json"), 1, "There is no result one.json"),
        (("compare", "one.json", "two.json", "--tolerance", -1), 2, "--tolerance"),
        (("zoo", "tiny"), 1, "No accuracy is published of tiny"),
        (("zoo", "efficientnet"), 1, "Unknown"),
        (("check", "--model", "nothing"), 1, "Unknown"),
    ],
)
def test_wrong_calls_say_what_to_do(
    zoo: Zoo, in_folder: Path, tiny_onnx: Path, arguments: tuple[object, ...], code: int, problem: str
) -> None:
    (in_folder / "tiny.onnx").symlink_to(tiny_onnx)
    answer = zoo("bench", *arguments)
    assert answer.code == code, answer.err
    assert problem in answer.err
    assert "Traceback" not in answer.err
    assert [path.name for path in in_folder.iterdir()] == ["tiny.onnx"]
