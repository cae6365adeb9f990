"""Every JSON the zoo prints, writes or answers has the fields that were recorded; docs/json.md is made from the record.

The commands run for real, on pictures of 40 px: the whole way in short. Recorded are the names and types of fields, not
their values.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import click
import onnx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from safetensors import safe_open

from serve.bench.measure.load import LoadRow
from serve.bench.measure.serving import serve_result
from serve.bench.measure.stage_runs import bench_fusion
from serve.bench.measure.stages import StagesData
from serve.bench.measure.table3 import TABLE_3
from serve.bench.options import ServeBenchOptions
from serve.bench.stage_options import FusionOptions
from tests.serve.bench.kinds.test_exporting import exporting_result
from tests.serve.bench.kinds.test_hotpath import made_result
from tests.serve.bench.measure.simulated import BUSY, FakeWatch
from tests.train.search import made
from train.search.options import SearchOptions
from train.search.result import SearchResult
from train.search.rows import Latency, LongTraining
from train.search.worker import open_lab
from zoo.cli import cli
from zoo.machine import cuda_driver
from zoo.measure.timing import Schedule
from zoo.model.variants import find_variant
from zoo.results import summarize

ROOT = Path(__file__).parents[1]
TRAIN = "--epochs 4 --batch-size 12 --image-size 32 --workers 0 --device cpu"
BRIEF = "--duration-s 0.01 --warmup-ms 0 --rounds 3 --device cpu"

TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "none"}
# Objects whose keys are data (capabilities, splits, packages, devices, sizes), by the end of their path.
FREE_KEYS = (
    "zoo doctor",
    "splits",
    "packages",
    "headlines",
    "captions",
    "absent",
    "targets",
    "difference_levels",
    "unattributed_ms",
    "tried",
    "answers",
    "refused",
)
# Objects that stand within several formats: described once, as they are in this place of this format.
SHARED = {
    "environment": ("MODEL.json", "environment"),
    "summary": ("zoo bench latency", "data.rows.0.latency"),
    "schedule": ("zoo bench latency", "settings.schedule"),
    "rounds": ("zoo bench latency", "data.turns.0.rounds"),
    "ratio": ("zoo bench latency", "data.comparisons.0.ratio"),
    "preprocessing": ("zoo pull", "preprocessing"),
    "contract": ("MODEL.json", "contract"),
    "comparison": ("MODEL.json", "parity.onnx"),
    "provenance": ("checkpoint.safetensors", "provenance"),
    "network": ("checkpoint.safetensors", "variant"),
    "recipe": ("checkpoint.safetensors", "recipe"),
    "training stage": ("zoo train --plan", "stages.0"),
    "epoch": ("metrics.jsonl", ""),
    "result": ("zoo bench latency", ""),
}

Ask = Callable[..., Any]
Samples = dict[str, list[Any]]
Shape = dict[str, set[str]]

pytestmark = pytest.mark.skipif(
    cuda_driver() is not None, reason="what a GPU did is recorded as none: this is about machines without"
)


@pytest.fixture
def ask(
    zoo: Callable[..., Any], in_folder: Path, picture_folder: Path, tiny_run: Path, shapes: Path, shapes_run: Path
) -> Ask:
    """`ask("show tiny")`: what the command prints with --json, parsed; in a folder with some pictures and a run."""
    shutil.copytree(picture_folder, in_folder / "pictures")
    shutil.copytree(tiny_run, in_folder / "of-ten-classes")
    shutil.copytree(shapes.parent, in_folder / "shapes")
    shutil.copytree(shapes_run, in_folder / "of-several-labels")

    def run(command: str, codes: Collection[int] = (0,)) -> Any:
        answer = zoo(*command.split(), "--json")
        assert answer.code in codes, f"{command}: {answer.err}"
        return json.loads(answer.out)

    return run


def read(path: str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def models(ask: Ask) -> Iterator[tuple[str, Any]]:
    """Commands that show networks and move weights."""
    yield "zoo list", ask("list")
    yield "zoo show", ask("show lite0")
    yield "zoo scale", ask("scale lite0 --depth 1.5 -o mine.toml")
    yield "zoo doctor", ask("doctor")
    yield "zoo pull", ask("pull lite0.imagenet1k")
    yield "zoo convert", ask("convert lite0 --to timm -o lite0.pth")
    yield "zoo import", ask("import lite0 lite0.pth --from timm")


def pictures(ask: Ask) -> Iterator[tuple[str, Any]]:
    """Commands that look at pictures and pack them."""
    train, val = Path("pictures/train"), Path("pictures/val")
    shutil.copy(train / "red/000.jpg", train / "red/copy.jpg")
    shutil.copy(train / "red/001.jpg", val / "blue/leak.jpg")
    (train / "red/003.jpg").write_bytes(b"not a picture")
    yield "zoo data check", ask("data check pictures")
    yield "zoo data pack", ask("data pack pictures -o shards --model tiny")
    yield "shards.json", read("shards/shards.json")
    Path("shards/shards.json").unlink()
    yield "zoo data index", ask("data index shards")


def a_run(ask: Ask) -> Iterator[tuple[str, Any]]:
    """The way from pictures to an artifact and its answers, and the files it leaves."""
    yield "zoo train --plan", ask("train tiny --plan")
    yield "zoo train", ask(f"train tiny --data pictures {TRAIN}")
    yield "zoo train", ask(f"train tiny --data shapes/labels.csv -o several {TRAIN}")
    yield "zoo train --folds", ask(f"train tiny --data pictures --folds 2 -o cv {TRAIN}")
    yield "zoo train --folds", ask(f"train tiny --data shapes/labels.csv --folds 2 -o cv-several {TRAIN}")
    ask(f"train tiny --find-lr -o at-found-rate {TRAIN}")
    yield "learning-rate.json", read("at-found-rate/learning-rate.json")
    for run in ("runs/tiny", "several"):
        for line in Path(run, "metrics.jsonl").read_text().splitlines():
            yield "metrics.jsonl", json.loads(line)
    for run in (
        "runs/tiny",
        "of-ten-classes",
        "of-several-labels",
    ):  # the first has every answer right, and so no temperature
        with safe_open(f"{run}/checkpoint.safetensors", framework="pt") as file:
            yield "checkpoint.safetensors", json.loads(file.metadata()["zoo"])
    yield "zoo compare", ask("compare runs/tiny runs/tiny")
    yield "zoo search", a_search_result()
    yield "zoo export", ask("export tiny --num-pictures 4 --triton models --kserve service.yaml")
    yield "MODEL.json", read("tiny.json")
    (metadata,) = (entry.value for entry in onnx.load("tiny.onnx").metadata_props if entry.key == "zoo")
    yield "MODEL.onnx", json.loads(metadata)
    yield "zoo export", ask("export tiny --precision int8 --agreement 0 --report --no-parity -o eight")
    yield "MODEL.json", read("eight/tiny.json")
    yield "MODEL.quantization.json", read("eight/tiny.quantization.json")
    yield "zoo evaluate --pictures quick", ask("evaluate tiny.onnx --data pictures --pictures quick")
    yield "MODEL.json", read("tiny.json")
    yield "zoo inspect", ask("inspect tiny.onnx")
    yield "zoo inspect", ask("inspect of-ten-classes")
    yield "zoo evaluate", ask("evaluate tiny.onnx --data pictures")
    yield "zoo evaluate", ask("evaluate of-ten-classes")
    yield "zoo evaluate", ask("evaluate of-several-labels --data shapes/labels.csv")
    yield "zoo predict", ask("predict tiny.onnx pictures/val/red/000.jpg")
    yield "zoo predict", ask("predict of-several-labels shapes/000.png --top 3")


def results(ask: Ask) -> Iterator[tuple[str, Any]]:
    """What was measured, here and in the committed files, by its kind."""
    stages = ask(f"bench stages tiny --image-size 32 --on torch --map 1 {BRIEF}")
    found = [
        ask(f"bench latency tiny.onnx runs/tiny --batch-size 1 {BRIEF}"),
        stages,
        with_a_drowned_stage(stages),
        a_fusion_result(),
        a_serve_result(),
        made_result().to_dict(),
        exporting_result().to_dict(),
        ask("bench train tiny --recipe digits --steps 3 --device cpu"),
        ask("bench train lite0 --at-size 32 --at-batch 2 --steps 3 --device cpu --beside-timm"),
        ask(f"bench latency tiny.onnx --scenario server --rate 50 --batch-size 2 {BRIEF}"),
        ask(f"bench latency tiny.onnx --idle-gap --batch-size 1 {BRIEF}"),
        ask(f"bench latency-table --space control --on torch --networks 3 --threads 1 {BRIEF}"),
        ask(f"bench zoo lite0 b0 {BRIEF}"),
        *(read(str(path)) for path in sorted((ROOT / "benchmarks").glob("*.json"))),
        # In so short a time a claim may fail, or be disturbed; after the committed one it tells of nothing new.
        ask("bench check --model tiny --runs 1 --duration-s 0.02 --threads 1", codes=(0, 3)),
    ]
    for result in found:
        yield f"zoo bench {result['kind'].replace('_', '-')}", result
    kept = next(Path("benchmarks").glob("latency-tiny-onnx-vs-*.json"))
    doubtful = read(str(kept))
    doubtful["data"]["turns"][0]["rounds"]["tracks"][0]["warm_up"]["settled"] = False
    Path("doubtful.json").write_text(json.dumps(doubtful), encoding="utf-8")
    yield "zoo bench compare", ask(f"bench compare {kept} doubtful.json")
    yield "zoo bench report", ask("bench report benchmarks")
    yield "report.json", read("benchmarks/report.json")


def with_a_drowned_stage(stages: dict[str, Any]) -> dict[str, Any]:
    """The same where a stage takes no time beside its frame: whether one does must not decide what is recorded."""
    data = StagesData.from_dict(stages["data"])
    row, *rows = data.rows
    cell, *cells = data.crossover
    drowned = replace(data, rows=(replace(row, ratio=None), *rows), crossover=(replace(cell, ratio=None), *cells))
    return stages | {"data": drowned.to_dict()}


def a_fusion_result() -> dict[str, Any]:
    """What `zoo bench fusion` prints, of networks that take no time."""
    tiny = find_variant("tiny")
    networks = tuple(replace(tiny, id=row.variant) for row in TABLE_3)
    options = FusionOptions(image_size=32, engines=("torch",), device="cpu")
    schedule = Schedule(warmup_ms=0, min_warmup_iterations=1, duration_ms=10, min_iterations=3, rounds=3)
    (result,) = bench_fusion(options, schedule=schedule, networks=networks)
    return result.to_dict()


def a_search_result() -> dict[str, Any]:
    """What `zoo search` prints, of made trials: which network wins must not decide what is recorded."""
    options = SearchOptions(space="control", data="pictures", device="cpu", workers=0)
    latency = Latency(ms=2.0, low=1.9, high=2.1)
    trials = [made.trial(number, 0.5 + 0.03 * number, ratio=1 + number / 10) for number in range(6)]
    trials[0] = replace(trials[0], costs=replace(made.costs(), latency=latency))
    trials += [replace(trials[5], number=6, state="failed", costs=None, trained=None, reason="out of memory")]
    trainings = [
        LongTraining(code=made.CANDIDATES[number].code, trained=made.trained(0.6 + 0.03 * number, seed=seed))
        for number, seeds in ((2, 1), (3, 2), (4, 2), (5, 2))
        for seed in range(seeds)
    ]
    names = {made.CANDIDATES[4].code: ["b0"]}
    found = SearchResult.of(
        lab=open_lab(options), options=options, device="cpu", names=names, trials=trials, trainings=trainings
    )
    return found.to_dict()


def a_serve_result() -> dict[str, Any]:
    """What `zoo bench serve` prints, of made loads: whether a real server refuses something is the machine's affair."""
    times = summarize([5.0] * 100)
    rows = [
        LoadRow(
            server="ours",
            loop=loop,
            clients=1 if loop == "closed" else None,
            offered_per_s=None if loop == "closed" else 200.0,
            capacity_share=None if loop == "closed" else 2.0,
            duration_s=1.0,
            good_per_s=100.0,
            refused_per_s=0.0 if loop == "closed" else 100.0,
            lost=0,
            summary=times,
            refusals=None if loop == "closed" else times,
            after_ms=5.0,
        )
        for loop in ("closed", "open")
    ]
    options = ServeBenchOptions(servers=("x",))
    return serve_result(rows, options, picture="china.jpg", picture_bytes=200_000, versions=["ours 1"]).to_dict()


def answers(ask: Ask) -> Iterator[tuple[str, Any]]:
    """What the server answers. Its metrics are recorded by name: kind, labels and help."""
    with serving("tiny.onnx") as (port, fetch):
        picture = Path("pictures/val/red/000.jpg").read_bytes()
        yield "POST /predict", json.loads(fetch("predict", picture))
        yield "GET /info", json.loads(fetch("info"))
        yield "an error", json.loads(fetch("predict", b"no picture"))
        yield "zoo serve", ask(f"serve --status --port {port}")
        families = text_string_to_metric_families(fetch("metrics").decode())
        yield "GET /metrics", dict(map(metric, families))


def metric(family: Any) -> tuple[str, str]:
    """A metric's name with its labels, but for a histogram's own, and what it is: “counter: Pictures classified.”."""
    labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return name + (f"{{{', '.join(labels)}}}" if labels else ""), f"{family.type}: {family.documentation}"


@contextmanager
def serving(engine: str) -> Iterator[tuple[str, Callable[..., bytes]]]:
    """`zoo serve` as a process; yields its port, and `fetch(path, body)`: an answer's body whatever its status."""
    command = [sys.executable, "-m", "zoo", "serve", "--engine", engine, "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stderr
        greeting = iter(server.stderr.readline, "")
        url = next(found[0] for line in greeting if (found := re.search(r"http://127[\d.]+:\d+/", line)))

        def fetch(path: str, body: bytes | None = None) -> bytes:
            request = urllib.request.Request(url + path, body, {"Content-Type": "image/jpeg"} if body else {})
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return bytes(answer.read())
            except HTTPError as refused:
                return refused.read()

        try:
            yield url.rstrip("/").rpartition(":")[2], fetch
        finally:
            server.terminate()
            server.communicate(timeout=60)


@pytest.mark.slow
def test_every_json_has_the_recorded_fields(
    ask: Ask, golden: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # Whether the machine is quiet now must not decide what is recorded: the first visit of all rounds is disturbed.
    monkeypatch.setattr("zoo.measure.rounds.Watch", lambda: FakeWatch(BUSY))
    samples: Samples = defaultdict(list)
    for part in (models, pictures, a_run, results, answers):
        for name, value in part(ask):
            samples[name].append(value)
    assert commands_with_json() <= samples.keys()
    assert formats_in_the_code() <= formats_in(list(samples.values()))
    (told,) = samples.pop("GET /metrics")
    metrics = {"GET /metrics": {name: what for name, what in told.items() if re.match(r"zoo_(?!.*_created)", name)}}
    golden("formats.json", as_text(record_of(samples) | metrics))


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
def test_an_export_with_a_plan_has_the_recorded_fields(tiny_run: Path, ask: Ask, golden: Callable[..., None]) -> None:
    command = f"export {tiny_run / 'checkpoint.safetensors'} --trt fp16 --builder tensorrt-rtx --num-pictures 4"
    record = record_of({"zoo export": [ask(command)], "MODEL.json": [read("tiny.json")]})
    golden("formats-trt.json", as_text({name: record[name] for name in ("zoo export", "MODEL.json")}))


def as_text(record: Any) -> str:
    return json.dumps(record, indent=0, ensure_ascii=False) + "\n"  # a field a line


def record_of(samples: Samples) -> dict[str, dict[str, str]]:
    """{format: {path: type}}; what several samples of a format hold, and several types of a field, is put together."""
    shared = {frozenset(place(samples[of][0], path)): name for name, (of, path) in SHARED.items() if of in samples}
    seen: Samples = defaultdict(list)
    record = {
        name: merged([shape_of(name, value, shared, seen) for value in values]) for name, values in samples.items()
    }
    for name in shared.values():
        if SHARED[name][1]:  # the others are a whole format themselves
            shapes = [shape_of(name, value, shared, defaultdict(list)) for value in tuple(seen[name])]
            record[f"<{name}>"] = merged(shapes)
    return record


def place(value: Any, path: str) -> Any:
    """The member of a JSON value at a path."""
    for step in filter(None, path.split(".")):
        value = value[int(step) if isinstance(value, list) else step]
    return value


def shape_of(name: str, value: Any, shared: dict[frozenset[str], str], seen: Samples) -> Shape:
    """The types of a value's fields by their paths: `stages[].size`, and `splits.*.pictures` where keys are data.

    A shared object within it has its name for a type, and is added to those `seen`.
    """
    shape: Shape = defaultdict(set)

    def walk(path: str, value: Any) -> None:
        if path and isinstance(value, dict) and (known := next((row for row in shared if is_one(value, row)), None)):
            shape[path].add(f"<{shared[known]}>")
            seen[shared[known]].append(value)
        elif isinstance(value, dict) and value:
            is_free = (path or name).rpartition(".")[2] in FREE_KEYS
            for key, member in value.items():
                walk(f"{path}.{'*' if is_free else key}".removeprefix("."), member)
        elif isinstance(value, list) and value:
            for member in value:
                walk(f"{path}[]", member)
        else:
            shape[path].add(TYPES.get(type(value), f"empty {type(value).__name__}"))

    walk("", value)
    return shape


def is_one(value: dict[str, Any], keys: frozenset[str]) -> bool:
    """Whether an object is a known one: by its keys, of which an earlier version may have lacked three."""
    return keys == value.keys() or (len(keys & value.keys()) >= 6 and len(keys ^ value.keys()) <= 3)


def merged(shapes: list[Shape]) -> dict[str, str]:
    """Several shapes as one; what was empty once is what it was when it was not."""
    together: Shape = defaultdict(set)
    for shape in shapes:
        for path, types in shape.items():
            together[path] |= types
    for path, types in together.items():
        if "number" in types:
            types.discard("whole number")
        if any(other.startswith((f"{path}[", f"{path}.")) for other in together):
            types -= {"empty list", "empty dict"}
    return {path: " or ".join(sorted(types, key="none".__eq__)) for path, types in together.items() if types}


def commands_with_json() -> set[str]:
    """Every command that takes --json."""

    def walk(command: click.Command, path: str) -> Iterator[str]:
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                yield from walk(command.get_command(context, name), f"{path} {name}")
        elif any("--json" in parameter.opts for parameter in command.params):
            yield path

    return set(walk(cli, "zoo"))


def formats_in_the_code() -> set[str]:
    """Every "zoo-…-1" that is written somewhere."""
    files = [file for package in ("zoo", "train", "export", "serve") for file in (ROOT / package).rglob("*.py")]
    return {name for file in files for name in re.findall(r'= "(zoo-[a-z]+-\d+)"', file.read_text())}


def formats_in(value: Any) -> set[str]:
    """Every "format" within a value."""
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = {value["format"]} if isinstance(value, dict) and isinstance(value.get("format"), str) else set()
    return own.union(*map(formats_in, members))
