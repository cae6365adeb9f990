from __future__ import annotations

import os
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest
from onnx import ModelProto

from export.engine.build import check_settings, choose_builder, compute_capabilities, engine_from_onnx
from export.engine.builders import (
    CLASSIC,
    RTX,
    BatchProfile,
    Builder,
    EngineSettings,
    capabilities_of,
    check_batches,
    find_builder,
)
from export.engine.tensorrt_api import Log, load_tensorrt
from export.precision.fp16 import to_fp16
from export.precision.rows import PRECISIONS, Precision, find_precision
from zoo.errors import EngineBuildError, MissingCapabilityError, UnknownNameError, ZooError
from zoo.machine import Driver, Gpu
from zoo.model.counts import largest_map
from zoo.model.variants import find_variant

needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")

ADA = Driver("13.0", (Gpu("NVIDIA L4", 24 * 2**30, (8, 9)),))
HOPPER = Driver("13.0", (Gpu("NVIDIA H100", 80 * 2**30, (9, 0)),))


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        ((0, 1, 2), "min is 0; expected a whole number of at least 1"),
        ((2, 1, 4), "profile is 2, 1, 4; expected three whole numbers of at least 1, the smaller one first"),
        ((1, 8, 4), "profile is 1, 8, 4; .* the smaller one first"),
        ((-1, 1, 1), "min is -1; expected a whole number of at least 1"),
    ],
)
def test_unordered_batch_profile_is_refused(batches: tuple[int, int, int], said: str) -> None:
    with pytest.raises(ZooError, match=said):
        BatchProfile(min=batches[0], opt=batches[1], max=batches[2])


def test_a_batch_beyond_tensorrts_tensors_is_refused_with_the_largest() -> None:
    of_s = largest_map(find_variant("s"), 384)
    check_batches((1, 8, 1213), of_s, 384)
    with pytest.raises(ZooError, match=r"1,769,472 numbers .* at most 2,147,483,647") as caught:
        check_batches((1, 8, 1214), of_s, 384)
    assert caught.value.hint == "The largest batch is 1,213: --profile 1 8 1213, or less."


def machine(monkeypatch: pytest.MonkeyPatch, driver: Driver | None, *installed: Builder) -> None:
    """A machine with this driver and these forms of TensorRT."""
    monkeypatch.setattr("export.engine.build.cuda_driver", lambda: driver)
    monkeypatch.setattr(
        "export.engine.build.installed_module", lambda row: row.modules[0] if row in installed else None
    )


def test_classic_tensorrt_builds_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, ADA, CLASSIC, RTX)
    assert choose_builder() is CLASSIC


def test_rtx_builds_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, None, CLASSIC, RTX)
    assert choose_builder() is RTX


def test_asking_for_a_target_means_the_ahead_of_time_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, ADA, CLASSIC, RTX)
    assert choose_builder(targets=["8.6"]) is RTX
    with pytest.raises(ZooError, match="GPU at hand only"):
        choose_builder("tensorrt", targets=["8.6"])


@pytest.mark.parametrize(("driver", "extra"), [(None, "zoo[rtx]"), (HOPPER, "zoo[tensorrt]")])
def test_without_either_the_hint_is_the_install_line(
    driver: Driver | None, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, driver)
    with pytest.raises(MissingCapabilityError) as caught:
        choose_builder()
    assert caught.value.hint == f"pip install '{extra}'"


def test_an_insisted_builder_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, None, CLASSIC)
    with pytest.raises(MissingCapabilityError, match="builds on a GPU"):
        choose_builder("tensorrt")
    with pytest.raises(MissingCapabilityError, match="TensorRT-RTX is not installed"):
        choose_builder("tensorrt-rtx")
    with pytest.raises(UnknownNameError):
        find_builder("tensort")


@needs_rtx
def test_rtx_is_not_chosen_unasked_for_a_gpu_it_never_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, HOPPER, RTX)
    with pytest.raises(MissingCapabilityError, match="does not run on NVIDIA H100"):
        choose_builder()
    assert choose_builder("tensorrt-rtx") is RTX
    assert choose_builder(targets=["8.9"]) is RTX


def test_missing_module_names_the_install_line(no_tensorrt: None) -> None:
    with pytest.raises(MissingCapabilityError, match="TensorRT is not installed"):
        load_tensorrt.__wrapped__(CLASSIC)


def test_log_keeps_all_but_verbose_and_tells_warnings_once() -> None:
    log = Log()
    for severity, text in ((4, "verbose"), (3, "info"), (2, "odd"), (2, "odd"), (1, "bad\nnews"), (0, "worse")):
        log.add(severity, text)
    assert log.warnings() == ("odd",)
    assert log.errors() == "bad news worse"
    assert log.text() == "info: info\nwarning: odd\nwarning: odd\nerror: bad news\ninternal error: worse\n"
    log.clear()
    assert log.errors() == "It gave no reason."


@pytest.fixture(scope="session")
def half_graph(tiny_graph: ModelProto) -> bytes:
    return to_fp16(tiny_graph).SerializeToString()


@needs_rtx
def test_rtx_builds_a_real_fp16_plan_without_a_gpu(half_graph: bytes) -> None:
    seen: list[tuple[str, int, int]] = []
    card = engine_from_onnx(
        half_graph,
        settings=EngineSettings(profiles=(BatchProfile(min=1, opt=4, max=16),)),
        builder=RTX,
        on_progress=lambda phase, done, total: seen.append((phase, done, total)),
    ).card
    rtx = load_tensorrt(RTX)
    assert (card.name, card.version) == ("tensorrt-rtx", rtx.version)
    assert card.targets[0] == "8.0" and "7.5" not in card.targets
    assert seen and all(1 <= done <= total for _, done, total in seen)
    written = card.to_dict()
    assert written["profile"] == {"min": 1, "opt": 4, "max": 16}
    assert written["settings"]["profiles"] == [written["profile"]] and not written["from_cache"]


# int8 and fp8 are made from pictures, not from the graph alone: tests/export/precision builds those.
@needs_rtx
@pytest.mark.parametrize(
    "precision", [row for row in PRECISIONS if row.id == "fp32" or row.transform], ids=lambda row: row.id
)
def test_rtx_builds_every_precision_for_any_batch(precision: Precision, tiny_graph: ModelProto) -> None:
    profiles = (BatchProfile(min=1, opt=2, max=4), BatchProfile(min=4, opt=16, max=64))
    graph = precision.apply(tiny_graph).SerializeToString()
    engine = engine_from_onnx(graph, builder=RTX, settings=EngineSettings(profiles=profiles, targets=("8.9",)))
    rtx = load_tensorrt(RTX)
    _, diagnostics = rtx.module.Runtime(rtx.logger).get_engine_validity(engine.plan)
    assert not int(diagnostics) & int(rtx.module.EngineInvalidityDiagnostics.MALFORMED_ENGINE)


@needs_rtx
def test_tensorrt_rtx_recognises_the_plan(half_graph: bytes) -> None:
    """Without a driver it calls every plan invalid here, but it still tells a malformed one from a sound one."""
    rtx = load_tensorrt(RTX)
    malformed = int(rtx.module.EngineInvalidityDiagnostics.MALFORMED_ENGINE)
    plan = engine_from_onnx(half_graph, builder=RTX).plan
    runtime = rtx.module.Runtime(rtx.logger)
    _, of_plan = runtime.get_engine_validity(plan)
    _, of_junk = runtime.get_engine_validity(b"junk" * 1000)
    assert not int(of_plan) & malformed
    assert int(of_junk) & malformed


@needs_rtx
def test_targets_are_the_ones_asked_for(half_graph: bytes) -> None:
    card = engine_from_onnx(half_graph, builder=RTX, settings=EngineSettings(targets=("8.9", "8.6"))).card
    assert card.targets == ("8.6", "8.9")
    with pytest.raises(UnknownNameError, match=r"compute capability '9\.0'"):
        engine_from_onnx(half_graph, builder=RTX, settings=EngineSettings(targets=("9.0",)))
    assert "8.6" in compute_capabilities(load_tensorrt(RTX))


@needs_rtx
def test_a_precision_is_built_for_gpus_that_compute_in_it_and_for_no_others() -> None:
    fp8, bf16 = (find_precision(id).least_capability for id in ("fp8", "bf16"))
    assert next(iter(check_settings(RTX, EngineSettings()))) == "8.0"
    assert next(iter(check_settings(RTX, EngineSettings(), least_capability=fp8))) == "8.9"
    later = EngineSettings(targets=("12.0", "8.9"))
    assert [*check_settings(RTX, later, least_capability=fp8)] == ["8.9", "12.0"]
    for least, targets, said in ((fp8, ("8.6", "12.0"), "capability 8.6 do not"), (bf16, ("7.5",), "7.5 do not")):
        with pytest.raises(ZooError, match=said):
            check_settings(RTX, EngineSettings(targets=targets), least_capability=least)


@needs_rtx
def test_a_refused_graph_is_our_error_with_the_builders_words(tmp_path: Path) -> None:
    with pytest.raises(EngineBuildError, match=r"TensorRT-RTX .* does not take this graph: .*[Pp]arse"):
        engine_from_onnx(b"no graph", builder=RTX, log_file=tmp_path / "s.log")
    assert "error: " in (tmp_path / "s.log").read_text()


@needs_rtx
def test_ctrl_c_stops_a_build(half_graph: bytes) -> None:
    interrupted = []

    def interrupt_once(phase: str, done: int, total: int) -> None:
        if not interrupted:
            interrupted.append(phase)
            os.kill(os.getpid(), signal.SIGINT)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            engine_from_onnx(half_graph, builder=RTX, on_progress=interrupt_once)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert interrupted


@needs_rtx
def test_several_profiles_and_families_of_gpus_make_one_plan(half_graph: bytes) -> None:
    profiles = (BatchProfile(min=1, opt=1, max=1), BatchProfile(min=2, opt=8, max=16))
    settings = EngineSettings(profiles=profiles, targets=capabilities_of(["rtx-blackwell,rtx-ampere"]))
    engine, single = (
        engine_from_onnx(half_graph, builder=RTX, settings=each)
        for each in (settings, EngineSettings(targets=settings.targets))
    )
    assert engine.card.targets == ("8.6", "12.0")
    assert engine.card.settings == settings and engine.card.profile == profiles[0]
    assert len(engine.plan) > 1.5 * len(single.plan), "every profile has kernels of its own"


@needs_rtx
def test_a_workspace_too_small_is_the_builders_own_error(half_graph: bytes) -> None:
    with pytest.raises(EngineBuildError, match="within workspace limit") as caught:
        engine_from_onnx(half_graph, builder=RTX, settings=EngineSettings(workspace_mib=1))
    assert caught.value.hint == "--workspace 1 may be too little: allow more, or leave it out."


def test_an_unknown_family_of_gpus_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"family of GPUs 'rtx-adda'\. Did you mean rtx-ada"):
        capabilities_of(["rtx-ampere,rtx-adda"])
