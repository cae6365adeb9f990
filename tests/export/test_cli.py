from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from onnx import ModelProto

from export.runners.open import open_runner
from zoo.data.digits import write_samples
from zoo.errors import ZooError

Zoo = Callable[..., Any]


@pytest.fixture
def exported(tiny_checkpoint: Path, in_folder: Path, exports_this_graph: ModelProto, zoo: Zoo) -> Any:
    """`zoo export` of the trained tiny network into the working folder."""
    return zoo("export", tiny_checkpoint, "--num-pictures", 8)


def test_export_prints_a_table_and_reports_steps_on_stderr(exported: Any) -> None:
    assert exported.code == 0
    assert "tiny.onnx" in exported.out and "8 of 8" in exported.out and "fp32" in exported.out
    assert "Compare ONNX Runtime with PyTorch" in exported.err
    assert "✓" not in exported.out


def test_export_json_is_only_json(tiny_checkpoint: Path, in_folder: Path, zoo: Zoo) -> None:
    """With the real exporter, so that nothing it says reaches stdout."""
    answer = zoo("export", tiny_checkpoint, "--json", "--num-pictures", 8, "-o", "out")
    fields = json.loads(answer.out)
    assert fields.keys() == {"onnx", "plan", "passport", "parity", "builder", "cost"}
    assert fields["onnx"] == str(Path("out") / "tiny.onnx") and Path(fields["onnx"]).is_file()
    assert Path(fields["passport"]).is_file() and fields["plan"] is None
    assert fields["parity"]["onnx"]["passed"] is True
    passport = json.loads(Path(fields["passport"]).read_text())
    typed = f"zoo export {tiny_checkpoint.name} --num-pictures 8 --out out --json"
    assert sorted(passport["command"].split()) == sorted(typed.split())
    assert json.loads(zoo("inspect", fields["onnx"], "--json").out)["made_by"] == passport["command"]


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
def test_export_with_a_plan_then_predict_with_it(
    tiny_checkpoint: Path, in_folder: Path, exports_this_graph: ModelProto, no_gpu: None, zoo: Zoo
) -> None:
    answer = zoo("export", tiny_checkpoint, "--trt", "fp16", "--target", "8.6", "--num-pictures", 8, "--json")
    fields = json.loads(answer.out)
    assert fields["builder"]["targets"] == ["8.6"] and fields["plan"] == "tiny.plan"
    table = zoo("export", tiny_checkpoint, "--trt", "fp16", "--target", "8.6", "--num-pictures", 8).out
    assert "Built by tensorrt-rtx" in table and "this machine has no GPU" in table
    refused = zoo("evaluate", "tiny.plan", "--data", "digits")
    assert refused.code == 1 and refused.out == ""
    assert "tiny.onnx beside it" in refused.err and "Traceback" not in refused.err


def test_failed_parity_exits_3_with_the_numbers(
    tiny_checkpoint: Path, in_folder: Path, exports_this_graph: ModelProto, zoo: Zoo
) -> None:
    weights = {weight.name: weight for weight in exports_this_graph.graph.initializer}
    weights["classifier.bias"].raw_data = (
        weights["classifier.bias"].raw_data[4:] + weights["classifier.bias"].raw_data[:4]
    )
    answer = zoo("export", tiny_checkpoint, "--num-pictures", 8)
    assert answer.code == 3
    assert answer.out == "" and "differs from the checkpoint" in answer.err and "--no-parity" in answer.err
    assert list(in_folder.iterdir()) == []


def test_unordered_profile_is_one_line(tiny_checkpoint: Path, in_folder: Path, zoo: Zoo) -> None:
    answer = zoo("export", tiny_checkpoint, "--trt", "fp16", "--profile", 8, 1, 2)
    assert answer.code == 1 and "--profile is 8, 1, 2" in answer.err and "the smaller one first" in answer.err


def test_predicting_with_a_graph_needs_no_torch(
    tiny_graph: ModelProto, in_folder: Path, frameworks_loaded_by: Callable[..., list[str]]
) -> None:
    (in_folder / "tiny.onnx").write_bytes(tiny_graph.SerializeToString())
    (picture,) = write_samples(in_folder / "pictures", 1)
    assert frameworks_loaded_by("predict", "tiny.onnx", picture) == ["onnxruntime", "numpy"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--target", "8.6"), "--target has no effect without --trt"),
        (("--builder", "tensorrt"), "--builder has no effect without --trt"),
        (("--profile", "1", "8", "32"), "--profile has no effect without --trt"),
        (("--no-parity", "--data", "digits"), "--data has no effect with --no-parity"),
        (("--no-parity", "--num-pictures", "8"), "--num-pictures has no effect with --no-parity"),
    ],
)
def test_options_without_effect_are_wrong_uses(
    arguments: tuple[str, ...], said: str, in_folder: Path, zoo: Zoo
) -> None:
    answer = zoo("export", "tiny", *arguments)
    assert answer.code == 2 and said in answer.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(
            ("--trt", "fp16", "--target", "8.55"),
            "Unknown compute capability '8.55'",
            marks=pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed"),
        ),
        (("--trt", "fp16", "--profile", 1, 8, 10**6), "A batch of 1,000,000 is too large"),
        (("--data", "nowhere"), "There is no folder nowhere."),
        (("-o", "/proc/nowhere"), "Cannot write to /proc/nowhere"),
        (("-o", "taken.onnx"), "Cannot write taken.onnx: it is a folder."),
        (("-o", "s.ONNX"), "neither a folder nor a path ending in .onnx"),
        (("-o", "s.engine"), "neither a folder nor a path ending in .onnx"),
    ],
)
def test_what_cannot_end_well_fails_before_the_export(
    arguments: tuple[str | int, ...],
    said: str,
    tiny_checkpoint: Path,
    in_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    zoo: Zoo,
) -> None:
    monkeypatch.setattr("export.pipeline.export_onnx", lambda *_, **__: pytest.fail("exported"))
    (in_folder / "taken.onnx").mkdir()
    answer = zoo("export", tiny_checkpoint, *arguments)
    assert answer.code == 1 and said in answer.err
    assert [path.name for path in in_folder.iterdir()] == ["taken.onnx"]


def test_threads_of_what_computes_elsewhere_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu = MagicMock(threads=None, device="NVIDIA H100")
    on_a_gpu.__exit__.return_value = None
    monkeypatch.setattr("export.runners.open._open", lambda *_: on_a_gpu)
    assert open_runner("s.plan") is on_a_gpu
    with pytest.raises(ZooError, match=r"--threads has no effect: s.plan runs on NVIDIA H100"):
        open_runner("s.plan", threads=2)
    on_a_gpu.__exit__.assert_called_once()


def test_predict_json_is_one_object_a_line(exported: Any, in_folder: Path, zoo: Zoo) -> None:
    paths = write_samples(in_folder / "pictures", 3)
    answer = zoo("predict", "tiny.onnx", *paths, "--json", "--top", 4)
    rows = [json.loads(line) for line in answer.out.splitlines()]
    assert answer.code == 0 and [row["picture"] for row in rows] == [str(path) for path in paths]
    for row in rows:
        scores = [prediction["score"] for prediction in row["predictions"]]
        assert len(scores) == 4 and scores == sorted(scores, reverse=True) and 0 < sum(scores) <= 1.0001
        assert all(prediction["class"] == str(prediction["index"]) for prediction in row["predictions"])


def test_one_broken_picture_does_not_stop_the_others(exported: Any, in_folder: Path, zoo: Zoo) -> None:
    good = write_samples(in_folder / "pictures", 2)
    broken = in_folder / "broken.jpg"
    broken.write_bytes(b"no picture")
    answer = zoo("predict", "tiny.onnx", good[0], broken, good[1], "--json")
    assert answer.code == 1
    assert [json.loads(line)["picture"] for line in answer.out.splitlines()] == [str(path) for path in good]
    assert str(broken) in answer.err and "1 of 3 pictures could not be read" in answer.err


def test_predict_takes_folders_patterns_addresses_and_standard_input(
    exported: Any, in_folder: Path, zoo: Zoo, serve_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted(write_samples(Path("pictures"), 12))
    Path("pictures/notes.txt").write_text("no picture")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(paths[0].read_bytes())))
    with serve_folder(in_folder) as server:
        address = f"{server.url}{paths[1]}"
        gone = f"{server.url}gone.png"
        answer = zoo("predict", "tiny.onnx", "pictures", address, gone, "-", "pictures/*/*-000.png", "--json")
    rows = {row["picture"]: row["predictions"] for row in map(json.loads, answer.out.splitlines())}
    first = [path for path in paths if path.name.endswith("-000.png")]
    assert list(rows) == [*map(str, paths), address, "-"]
    assert len(answer.out.splitlines()) == len(paths) + 2 + len(first)
    assert rows["-"] == rows[str(paths[0])]
    assert rows[address] == rows[str(paths[1])]
    assert answer.code == 1, "one of them could not be read"
    assert f"{gone} answers 404" in answer.err and "1 of 16 pictures could not be read" in answer.err
    assert answer.err.count("Left out: 1 .txt files, which are no pictures.") == 1
    assert "Classify 16 pictures with tiny.onnx" in answer.err, "of many it is told how far it is"


def test_the_answers_stay_on_stdout_while_a_bar_is_on_stderr(
    exported: Any, in_folder: Path, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_samples(Path("pictures"), 12)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    answer = zoo("predict", "tiny.onnx", "pictures", "--json")
    assert len(list(map(json.loads, answer.out.splitlines()))) == 12
    assert "Classify 12 pictures" in answer.err and "predictions" not in answer.err


@pytest.mark.parametrize("width", [60, 80, None])
def test_what_export_and_predict_print_is_whole(
    width: int | None, exported: Any, tiny_checkpoint: Path, in_folder: Path, zoo: Zoo, at_width: Any
) -> None:
    (path,) = write_samples(Path("pictures"), 1)
    at_width(width)
    table = zoo("export", tiny_checkpoint, "--num-pictures", 8, "-o", "a/folder/with/a/long/name").out
    file = Path("a/folder/with/a/long/name/tiny.onnx")
    sha256 = json.loads(file.with_suffix(".json").read_text())["files"]["onnx"]["sha256"]
    assert {str(file), str(file.with_suffix(".json")), sha256[:12], "fp32"} <= set(table.split())
    assert "8 of 8" in table
    bars = zoo("predict", "tiny.onnx", path).out
    assert bars.count("%") == 5
    for said in (table, bars):
        assert "…" not in said
        assert not width or max(map(len, said.splitlines())) <= width


def test_predict_draws_bars_for_people(exported: Any, in_folder: Path, zoo: Zoo) -> None:
    (path,) = write_samples(in_folder / "[odd] name", 1)
    answer = zoo("predict", "tiny.onnx", path)
    assert answer.code == 0 and "[odd] name" in answer.out and "%" in answer.out
    assert len(answer.out.strip().splitlines()) == 6


def test_evaluate_takes_checkpoint_and_graph_alike(
    exported: Any, tiny_checkpoint: Path, in_folder: Path, zoo: Zoo
) -> None:
    answers = [json.loads(zoo("evaluate", artifact, "--json").out) for artifact in (tiny_checkpoint, "tiny.onnx")]
    reference, candidate = answers
    assert reference.keys() == {"top1", "top5", "loss", "n", "artifact", "flip"}
    assert reference["n"] == candidate["n"] == 360
    assert candidate["artifact"] == "tiny.onnx"
    assert candidate["loss"] == pytest.approx(reference["loss"], abs=1e-4)
    assert candidate["top1"] == pytest.approx(reference["top1"], abs=1 / 360)


def test_evaluate_needs_data_it_knows(exported: Any, in_folder: Path, zoo: Zoo) -> None:
    Path("tiny.json").unlink()
    answer = zoo("evaluate", "tiny.onnx")
    assert answer.code == 1 and "tiny.onnx has no passport tiny.json" in answer.err and "--data" in answer.err
    other_classes = zoo("evaluate", "tiny.onnx", "--data", "nowhere")
    assert other_classes.code == 1 and "There is no folder nowhere" in other_classes.err


def test_top5_of_three_classes_is_not_printed(picture_folder: Path, in_folder: Path, zoo: Zoo) -> None:
    """And an artifact that travelled names the folder it was trained on."""
    flags = ("--epochs", 4, "--image-size", 16, "--batch-size", 36, "--device", "cpu", "--workers", 0)
    assert zoo("train", "tiny", "--data", picture_folder, *flags).code == 0
    printed, told = zoo("evaluate", "tiny"), zoo("evaluate", "tiny", "--json")
    assert "top-1" in printed.out and "top-5" not in printed.out
    assert json.loads(told.out)["top5"] is None
    assert zoo("export", "tiny", "--num-pictures", 3).code == 0
    travelled = zoo("evaluate", "tiny.onnx")
    assert travelled.code == 1
    assert f"was trained on {picture_folder.name}" in travelled.err and "not where it is" in travelled.err


def test_evaluate_names_classes_that_differ(exported: Any, picture_folder: Path, zoo: Zoo) -> None:
    answer = zoo("evaluate", "tiny.onnx", "--data", picture_folder)
    assert answer.code == 1 and "blue, green, red" in answer.err and "0, 1, 2, 3, 4, …" in answer.err


def test_evaluate_names_broken_pictures_and_goes_on(
    exported: Any, picture_folder: Path, in_folder: Path, zoo: Zoo
) -> None:
    for colour, digit in (("blue", "0"), ("green", "1")):
        shutil.copytree(picture_folder / "val" / colour, in_folder / "labelled" / digit)
    victim = next((in_folder / "labelled" / "1").iterdir())
    victim.write_bytes(b"no picture")
    answer = zoo("evaluate", "tiny.onnx", "--data", "labelled", "--json")
    assert answer.code == 0 and json.loads(answer.out)["n"] == 11
    assert victim.name in answer.err


def test_somebody_elses_file_is_one_line(in_folder: Path, zoo: Zoo) -> None:
    Path("theirs.onnx").write_bytes(b"not a graph")
    for command in (("predict", "theirs.onnx", "x.png"), ("evaluate", "theirs.onnx", "--data", "digits")):
        answer = zoo(*command)
        assert answer.code == 1 and "theirs.onnx cannot be read" in answer.err and "Traceback" not in answer.err
