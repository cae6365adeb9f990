from __future__ import annotations

import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from onnx import ModelProto

from export.engine import plan_cache
from export.engine.build import engine_from_onnx
from export.engine.builders import CLASSIC, RTX, BatchProfile, BuildCard, EngineSettings
from export.engine.plan_cache import find_plan, keep_plan, plan_key
from export.engine.tensorrt_api import Log, TensorRT
from zoo.machine import Gpu

MODULE: Any = SimpleNamespace()
HERE = TensorRT(CLASSIC, MODULE, "11.4.0", None, Log())
L4, L40 = Gpu("NVIDIA L4", 24 * 2**30, (8, 9)), Gpu("NVIDIA L40", 48 * 2**30, (8, 9))
CARD = BuildCard(
    name="tensorrt",
    version="11.4.0",
    targets=("8.9",),
    profile=BatchProfile(),
    gpu="NVIDIA L4",
    build_s=61.5,
    warnings=("odd",),
    settings=EngineSettings(),
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    return tmp_path / "plans"


def key(graph: bytes = b"graph", settings: EngineSettings | None = None, **other: Any) -> str:
    given: dict[str, Any] = {"tensorrt": HERE, "targets": (), "gpu": L4} | other
    return plan_key(graph, settings or EngineSettings(), **given)


def test_a_plan_is_found_by_all_that_makes_it_what_it_is() -> None:
    assert key() == key()
    others = {
        key(b"other weights"),
        key(settings=EngineSettings(workspace_mib=512)),
        key(settings=EngineSettings(profiles=(BatchProfile(max=64),))),
        key(tensorrt=replace(HERE, version="11.4.1")),
        key(tensorrt=replace(HERE, builder=RTX)),
        key(gpu=L40),
        key(gpu=None, targets=("8.6",)),
        key(),
    }
    assert len(others) == 8


def test_what_was_kept_is_found_again(cache: Path) -> None:
    assert find_plan(key()) is None
    assert keep_plan(key(), b"plan", CARD, "info: built\n") is None
    assert find_plan(key()) == (b"plan", CARD, "info: built\n")
    assert [entry.name for entry in cache.iterdir()] == [key()], "nothing half-made stays"


@pytest.mark.parametrize("file", ["plan", "card.json"])
def test_a_changed_plan_is_never_used(file: str, cache: Path) -> None:
    keep_plan(key(), b"plan", CARD, "")
    (cache / key() / file).write_bytes(b"malice")
    assert find_plan(key()) is None
    assert not (cache / key()).exists()


def test_those_used_longest_ago_go_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_cache, "LARGEST_CACHE_BYTES", 4000)
    names = [key(bytes([number])) for number in range(3)]
    for age, name in zip((300, 200, 100), names, strict=True):
        keep_plan(name, bytes(1000), CARD, "")
        os.utime(cache / name, (age, age))
    find_plan(names[0])
    keep_plan(key(b"new"), bytes(1000), CARD, "")
    left = {entry.name for entry in cache.iterdir()}
    assert {names[0], key(b"new")} <= left and names[1] not in left


def test_a_plan_that_cannot_be_kept_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file"))
    problem = keep_plan(key(), b"plan", CARD, "")
    assert problem and "was not kept for later exports" in problem and str(tmp_path) not in problem


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
def test_the_same_export_is_not_built_twice(tiny_graph: ModelProto, cache: Path, tmp_path: Path) -> None:
    graph = tiny_graph.SerializeToString()
    first = engine_from_onnx(graph, builder=RTX, cache=True)
    steps: list[object] = []
    log = tmp_path / "s.log"
    again = engine_from_onnx(graph, builder=RTX, cache=True, log_file=log, on_progress=lambda *step: steps.append(step))
    assert again.plan == first.plan and again.card == replace(first.card, from_cache=True)
    assert not steps and "info: " in log.read_text()
    other = engine_from_onnx(graph, builder=RTX, cache=True, settings=EngineSettings(targets=("8.6",)))
    assert not other.card.from_cache
    anew = engine_from_onnx(graph, builder=RTX)
    assert not anew.card.from_cache
