"""The scripts of benchmarks/ run; what they measure is no test's business."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import click
import pytest
from rich.table import Table

from serve.bench.kind import find_kinds
from serve.bench.report.devices import group_by_device, terminal_lines
from serve.bench.report.page import render_page
from tests.serve.bench.measure.made_search import a_table
from zoo.cli import cli
from zoo.machine import cuda_driver
from zoo.results import read_results

ROOT = Path(__file__).parents[1]


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_committed_results_are_read_and_shown_whatever_version_wrote_them() -> None:
    results = read_results([ROOT / "benchmarks"], find_kinds())
    kinds = {"conditioning", "decoding", "latency", "loader", "peers", "progressive", "stages"}
    assert kinds <= {result.kind for result in results}
    page = render_page(group_by_device(results))
    for result in results:
        assert result.name in page
        table, *_, sentence = terminal_lines(result)
        assert isinstance(table, Table)
        assert str(sentence).startswith("• ")


@pytest.mark.slow
def test_peers_are_measured_in_both_passes(tmp_path: Path) -> None:
    done = run("peers.py", "--only", "lite0", "--image-size", "32", "--rounds", "5", "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    (runs,) = group_by_device(read_results([tmp_path]))
    rows = runs.of("peers")[0].data.rows
    assert {(row.network, row.peer, row.mode, row.image_size) for row in rows} == {
        ("lite0", "timm", "forward", 32),
        ("lite0", "timm", "step", 32),
    }
    assert all(row.ours.n >= 5 and row.theirs.n >= 5 for row in rows)


@pytest.mark.slow
def test_back_ends_are_measured_beside_onnx_runtime(tmp_path: Path, picture_folder: Path) -> None:
    small = ("--only", "lite0", "--image-size", "32", "--rounds", "5", "--crops", "2")
    done = run("backends.py", *small, "--calib", picture_folder, "--backends", "torch", "openvino", "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    (runs,) = group_by_device(read_results([tmp_path]))
    data = runs.of("backends")[0].data
    here = ["onnxruntime", "torch", *(["openvino"] if find_spec("openvino") else [])]
    in_files = [id for id in here if id != "torch"]
    found = [(row.backend, row.precision) for row in data.rows]
    assert found == [(id, "fp32") for id in here] + [(id, "int8") for id in in_files]
    assert all(row.latency.n == 5 and row.pictures == 14 for row in data.rows)
    assert all(row.top1_agreement == 1.0 and not row.failures for row in data.rows if row.precision == "fp32")
    assert bool(data.absent) == ("openvino" not in here)


@pytest.mark.slow
def test_what_an_export_takes_is_measured_step_by_step(tmp_path: Path) -> None:
    small = ("--model", "tiny", "--image-size", "32", "--runs", "1", "--only", "fp16")
    done = run("exporting.py", *small, "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    (runs,) = group_by_device(read_results([tmp_path]))
    (row,) = runs.of("exporting")[0].data.rows
    assert (row.command, row.image_size) == ("zoo export tiny --trt fp16", 32)
    steps = [step.what for step in row.usual.steps]
    assert steps[0] == "Start Python and import" and "Compare the fp16 graph with PyTorch" in steps
    assert ("Build the fp16 plan" in steps) == bool(row.built_by) == (find_spec("tensorrt_rtx") is not None)
    assert all(step.peak_bytes > 50e6 for step in row.usual.steps) and row.usual.cpu_s > 0


@pytest.mark.slow
def test_exported_graphs_are_measured_beside_timms(tmp_path: Path) -> None:
    small = ("--only", "lite0", "--image-size", "32", "--rounds", "5", "--threads", "1")
    done = run("peers.py", "--exported", *small, "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    (runs,) = group_by_device(read_results([tmp_path]))
    rows = runs.of("peers")[0].data.rows
    assert [(row.network, row.peer, row.batch_size, row.threads, row.mode) for row in rows] == [
        ("lite0", "timm", batch_size, 1, mode) for batch_size in (1, 8) for mode in ("exported", "exported-legacy")
    ]


@pytest.mark.slow
def test_training_for_int8_is_measured_beside_calibration_and_resumed(tmp_path: Path, picture_folder: Path) -> None:
    small = ("--runs", tmp_path / "runs", "--image-size", "24", "--epochs", "4", "--qat-epochs", "4")
    asked = (
        "qat.py",
        "tiny",
        "--data",
        picture_folder / "train",
        "--test",
        picture_folder / "val",
        *small,
        "-o",
        tmp_path,
    )
    for _ in range(2):
        done = run(*asked)
        assert done.returncode == 0, done.stderr
    assert "is finished" in done.stderr
    (runs,) = group_by_device(read_results([tmp_path]))
    rows = runs.of("quantization")[0].data.rows
    assert {"as exported", "trained for int8"} <= {row.how for row in rows}
    assert {row.layout for row in rows} == {"onnxruntime", "tensorrt"}


def test_conditioning_is_measured_damped_and_not(tmp_path: Path) -> None:
    done = run("conditioning.py", "--only", "tiny", "--image-size", "32", "--undamped", "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    (runs,) = group_by_device(read_results([tmp_path]))
    rows = runs.of("conditioning")[0].data.rows
    assert [(row.network, row.image_size, row.branch_scale) for row in rows] == [("tiny", 32, 1.0), ("tiny", 32, 0.2)]
    assert all(row.passed and row.n == 30 for row in rows)


def test_memory_is_measured_with_activations_kept_and_computed_again() -> None:
    done = run("checkpointing.py", "--model", "tiny", "--image-size", "32", "--batch-size", "4", "--steps", "1")
    assert done.returncode == 0, done.stderr
    head, kept, again = done.stdout.splitlines()
    assert head.startswith("tiny, 4 pictures of 32 px, fp32, ") and head.endswith("n 1")
    assert "kept" in kept and "computed-again" in again and all(" MB " in line for line in (kept, again))


def test_every_part_of_the_gpu_benchmark_is_a_command_that_exists() -> None:
    spec = spec_from_file_location("gpu_benchmark", ROOT / "benchmarks" / "gpu.py")
    assert spec and spec.loader
    gpu = module_from_spec(spec)
    sys.modules[spec.name] = gpu  # dataclasses look their module up
    spec.loader.exec_module(gpu)
    listed = list(gpu.parts())
    assert len({part.command for part in listed}) == len(listed)
    assert {part.needs for part in listed} == set(gpu.abilities())
    for part in listed:
        if part.is_script:
            assert (ROOT / "benchmarks" / part.command.split()[0]).is_file()
            continue
        words = part.command.format(work="work").split()
        context = cli.make_context("zoo", words, resilient_parsing=True)
        command: click.Command = cli
        while isinstance(command, click.Group):
            found = command.get_command(context, words.pop(0))
            assert found, part.command
            command = found
        assert command.make_context(part.command, [*words, "-o", "here"] if part.keeps else words)


def test_broken_requests_are_refused_and_counted(tmp_path: Path) -> None:
    done = run("fuzz.py", "--inputs", "2000", "--seed", "1", "-o", tmp_path / "fuzz.jsonl")
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "fuzz.jsonl").read_text())
    assert told["inputs"] == sum(sum(counts.values()) for counts in told["parsers"].values()) > 1900
    assert all(set(counts) - {"read"} for counts in told["parsers"].values())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the server's memory")
def test_a_server_is_held_under_everything_clients_do(tiny_run: Path, tmp_path: Path) -> None:
    model, out = tiny_run / "checkpoint.safetensors", tmp_path / "soak.jsonl"
    done = run("soak.py", model, "--minutes", "0.05", "--connections", "30", "-o", out)
    assert done.returncode in (0, 3), done.stderr  # in three seconds bombs alone decide what memory grew by
    told = json.loads(out.read_text())
    assert (told["connections"], told["with_idle"]["files"] > told["before"]["files"]) == (30, True)
    assert told["answers"]["idle"]["200"] >= 30
    assert set(told["answers"]) & {"good", "malformed", "huge", "slow", "vanishing"}
    assert told["n"] == sum(sum(counts.values()) for counts in told["answers"].values())
    assert told["answers"].get("good", {}).keys() <= {"200", "503"}
    assert told["environment"]["cores"] and told["memory"]


@pytest.mark.skipif(cuda_driver() is not None, reason="there is an NVIDIA driver: this is about machines without")
def test_the_gpu_benchmark_says_that_there_is_no_gpu() -> None:
    done = run("gpu.py")
    assert done.returncode == 0, done.stderr
    assert "No usable NVIDIA GPU" in done.stdout
    assert "zoo bench stages s --on tensorrt --precision fp16" in done.stdout


@pytest.mark.slow
def test_a_table_is_trained_searches_are_replayed_and_what_is_there_is_not_trained_again(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    small = ("--networks", "5", "--short", "1", "--long", "1", "--ranked", "1", "--seeds", "2")
    searches = ("--trials", "3", "--repetitions", "2", "-o", tmp_path)
    first = run("search.py", *small, "--until", "table", *searches)
    assert first.returncode == 0, first.stderr
    assert "no search has been replayed yet" in first.stdout
    done = run("search.py", *small, *searches)
    assert done.returncode == 0, done.stderr
    (runs,) = group_by_device(read_results([tmp_path]))
    data = runs.of("search")[0].data
    assert [one.code for one in data.published] == [row.code for row in data.networks[:4]]
    assert {run.why for run in data.long_runs} == {"ranking", "published", "finalist"}
    assert {(replay.sampler, replay.seed, len(replay.order)) for replay in data.replays} == {
        (sampler, seed, 3) for sampler in ("random", "tpe", "nsga2") for seed in (0, 1)
    }
    assert " s\n" not in done.stdout.partition("ranking")[0]  # no line of a short training: all five are there
    other = run("search.py", *small, *searches, "--short", "2")
    assert other.returncode != 0 and "trained otherwise" in other.stderr


def test_a_table_answers_by_its_nearest_network_and_is_asked_once_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from search_replays import Table, replays

    data = a_table(lambda candidate: 0.9 if candidate.code.startswith("f3e1x1-f") else 0.1)
    table = Table(data)
    assert [table.nearest(row.candidate) for row in data.networks] == list(range(len(data.networks)))
    part = Table(replace(data, networks=data.networks[:3]))
    assert part.nearest(data.networks[2].candidate) == 2 and part.nearest(data.networks[-1].candidate) < 3
    found = list(replays(data, trials=12, repetitions=2))
    assert found == list(replays(data, trials=12, repetitions=2))
    for replay in found:
        assert len(set(replay.order)) == len(replay.order) == 12
        assert max(replay.order) < len(data.networks)
    assert len(next(replays(data, trials=99, repetitions=1)).order) == len(data.networks)


def test_drawn_sets_are_the_same_for_a_seed_and_differ_by_class(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = spec_from_file_location("made_sets", ROOT / "benchmarks" / "made_sets.py")
    assert spec and spec.loader
    made = module_from_spec(spec)
    spec.loader.exec_module(made)
    for name, (draw, classes) in made.MADE.items():
        monkeypatch.setitem(made.MADE, name, (draw, dict.fromkeys(classes, (1, 1, 1))))
        first, again, other = (
            made.make_drawn_set(name, tmp_path / name / part, int(part[0])) for part in ("0", "0b", "1")
        )
        files = sorted(path.relative_to(first) for path in first.rglob("*.jpg"))
        assert len(files) == 3 * len(classes)
        bytes_of = [[(folder / file).read_bytes() for file in files] for folder in (first, again, other)]
        assert bytes_of[0] == bytes_of[1] != bytes_of[2]
        assert len(set(bytes_of[0])) == len(files)
