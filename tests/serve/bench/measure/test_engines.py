from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export.passport import check_plan
from export.runners.compiled import Compiler
from export.runners.pytorch import TorchRunner
from serve.bench.engine_rows import ENGINES, find_engine
from serve.bench.measure import engines
from serve.bench.measure.engines import (
    COMPILED_AT_ONCE,
    Bench,
    best_engine,
    check_answers,
    check_engine,
    forget_compiled,
    open_prepared,
    prepare_artifact,
    reference_answers,
)
from serve.bench.measure.forms import PictureStage, build_form, contract_of
from serve.bench.measure.pictures import random_pictures
from serve.bench.measure.places import places
from zoo.errors import MissingCapabilityError, UnknownNameError, VerdictError, ZooError
from zoo.machine import Driver, Gpu, cuda_driver
from zoo.model.variants import find_variant

TINY = find_variant("tiny")
PLACE = list(places(TINY, 16))[2]
H200 = Driver("13.0", (Gpu("NVIDIA H200", 141 * 2**30, (9, 0)),))


@pytest.fixture(scope="module")
def stage() -> PictureStage:
    return build_form(TINY, PLACE, PLACE.stage)


def a_bench(engine: str, precision: str, folder: Path) -> Bench:
    return Bench(engine=find_engine(engine), precision=precision, batch_size=2, folder=folder, device="cpu", threads=1)


@pytest.mark.parametrize(
    ("engine", "precision"),
    [("torch", "fp32"), ("ort-cpu", "fp32"), ("ort-cpu", "fp16"), ("ort-cpu", "int8"), ("openvino", "fp32")],
)
def test_a_stage_answers_as_pytorch_does(engine: str, precision: str, stage: PictureStage, tmp_path: Path) -> None:
    if engine == "openvino" and find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    bench, contract = a_bench(engine, precision, tmp_path), contract_of(stage, PLACE)
    pictures = random_pictures(2, contract.preprocessing.image_size)
    reference = reference_answers(stage, contract, pictures)
    with open_prepared(prepare_artifact(stage, contract, bench, "stage"), bench) as runner:
        error = check_answers(runner, reference, pictures, precision=precision, name="Stage 3")
        assert runner.threads == 1
    assert error > 0 if precision != "fp32" else error < 1e-5


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")
@pytest.mark.skipif(cuda_driver() is not None, reason="this machine has a GPU, which TensorRT-RTX may not know")
def test_a_plan_of_a_stage_is_built_with_its_passport(stage: PictureStage, tmp_path: Path) -> None:
    bench = a_bench("tensorrt-rtx", "fp16", tmp_path)
    prepared = prepare_artifact(stage, contract_of(stage, PLACE), bench, "stage")
    assert prepared.artifact == tmp_path / "stage.plan"
    passport = check_plan(prepared.artifact)
    assert passport.contract == prepared.contract
    assert passport.builder and passport.builder.built_as.profiles[0].max == 2
    with pytest.raises(MissingCapabilityError, match="NVIDIA GPU only"):
        open_prepared(prepared, bench)


def test_no_network_is_timed_uncompiled_because_others_were_compiled_before(
    stage: PictureStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`torch.compile` compiles eight networks of a kind, and computes the ninth as it is without a word."""
    config: Any = torch._dynamo.config
    before, seen, resets = config.recompile_limit, list[tuple[int, bool]](), list[str]()
    compiler = Compiler("noted", lambda network, example: seen.append(limits()) or network)  # type: ignore[func-returns-value]

    def limits() -> tuple[int, bool]:
        return config.recompile_limit, config.fail_on_recompile_limit_hit

    monkeypatch.setitem(engines._COMPILERS, "torch-compile", compiler)
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append("reset"))
    bench = a_bench("compile", "fp32", tmp_path)
    with open_prepared(prepare_artifact(stage, contract_of(stage, PLACE), bench, "stage"), bench):
        assert seen == [(COMPILED_AT_ONCE, True)]
    assert config.recompile_limit == before
    forget_compiled(bench)
    forget_compiled(a_bench("torch", "fp32", tmp_path))
    assert resets == ["reset"]


class Wrong:
    """A runner that answers what it is told to."""

    backend = "fake 1.0"

    def __init__(self, answers: NDArray[np.float32]) -> None:
        self.answers = answers

    def infer(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.answers


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (np.full((1, 3), 1.001, np.float32), "differs from PyTorch by 1.0e-03"),
        (np.array([[1, 1, np.nan]], np.float32), "finite"),
        (np.ones((1, 2), np.float32), r"answers \(1, 2\), expected \(1, 3\)"),
    ],
)
def test_what_answers_wrongly_is_never_timed(answers: NDArray[np.float32], said: str) -> None:
    runner: Any = Wrong(answers)
    with pytest.raises(VerdictError, match=said) as error:
        check_answers(runner, np.ones((1, 3), np.float32), random_pictures(1, 8), precision="fp32", name="Stage 3")
    assert "not timed" in error.value.hint


def test_the_best_engine_is_the_processors_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "cuda_driver", lambda: None)
    assert best_engine().id == best_engine("cpu").id == "ort-cpu"
    with pytest.raises(MissingCapabilityError, match="no NVIDIA GPU"):
        best_engine("cuda")


@pytest.mark.parametrize(
    ("installed", "providers", "expected"),
    [
        (("tensorrt", "tensorrt-rtx"), ("CUDAExecutionProvider",), "tensorrt"),
        (("tensorrt-rtx",), ("CUDAExecutionProvider",), "ort-cuda"),  # RTX does not know an H200
        ((), ("CUDAExecutionProvider",), "ort-cuda"),
        ((), ("CPUExecutionProvider",), "torch"),
    ],
)
def test_the_best_engine_of_a_gpu_is_what_is_installed(
    installed: tuple[str, ...], providers: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "cuda_driver", lambda: H200)
    monkeypatch.setattr(engines, "installed_module", lambda builder: builder.id in installed)
    monkeypatch.setattr(engines, "load_tensorrt", lambda builder: None)
    monkeypatch.setattr(engines, "compute_capabilities", lambda tensorrt: {"8.6": None, "12.0": None})
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: list(providers))
    assert best_engine().id == expected
    assert best_engine("cpu").id == "ort-cpu"


def test_what_an_engine_cannot_do_is_refused_before_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZooError, match="not measured in bf16") as error:
        check_engine(find_engine("ort-cpu"), "bf16", "auto")
    assert "fp32, fp16 or int8" in error.value.hint
    with pytest.raises(ZooError, match="computes on the processor, and --device is cuda"):
        check_engine(find_engine("openvino"), "fp32", "cuda")
    with pytest.raises(UnknownNameError, match="ort-gpu"):
        find_engine("ort-gpu")


@pytest.mark.skipif(cuda_driver() is not None, reason="this machine has a GPU")
@pytest.mark.parametrize("engine", [row.id for row in ENGINES if row.device == "cuda"])
def test_an_engine_of_a_gpu_is_refused_without_one(engine: str) -> None:
    with pytest.raises(MissingCapabilityError, match=f"--on {engine} computes on an NVIDIA GPU") as error:
        check_engine(find_engine(engine), "fp16", "auto")
    assert "--on ort-cpu" in error.value.hint


def test_a_back_end_that_rounds_by_itself_gets_float32() -> None:
    assert find_engine("openvino-bf16").graph_precision("bf16") == "fp32"
    assert find_engine("tensorrt").graph_precision("bf16") == "bf16"


def test_every_engine_either_has_a_profiler_or_says_why_not() -> None:
    assert all(bool(row.profiler) is not bool(row.why) for row in ENGINES)
    assert {row.id for row in ENGINES if not row.opens_graphs} == {"torch", "compile", "aot"}


def test_the_reference_is_pytorch_on_the_processor(stage: PictureStage) -> None:
    contract = contract_of(stage, PLACE)
    pictures = random_pictures(3, contract.preprocessing.image_size)
    with TorchRunner(stage, contract, device="cpu") as runner:
        np.testing.assert_array_equal(reference_answers(stage, contract, pictures), runner.infer(pictures))
