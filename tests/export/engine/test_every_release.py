"""Building, running and refitting with the API of every release of TensorRT, as its own wheels have it.

`releases.py` records those, and runs these tests with the real bindings of each (`ZOO_TENSORRT_RELEASE`).
"""

from __future__ import annotations

import importlib
import json
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from export.engine.build import check_settings, choose_builder, engine_from_onnx
from export.engine.builders import CLASSIC, RTX, BatchProfile, Builder, EngineSettings
from export.engine.native import plan_of_graph
from export.engine.tensorrt_api import Log, TensorRT, _logger
from export.options import ExportOptions
from export.passport import check_plan
from export.pipeline import ExportResult, export_model
from export.runners.onnx_runtime import OnnxRunner
from export.runners.open import open_runner
from tests.export.engine.fake_tensorrt import CallError, fake_tensorrt, fields_of
from tests.export.engine.releases import GOLDEN, names_in_our_code, read_release, release_of
from tests.export.fake_cuda import FakeCuda
from zoo.errors import ArtifactError, EngineBuildError, ZooError
from zoo.machine import Driver, Gpu

RELEASES = json.loads(GOLDEN.read_text(encoding="utf-8"))
IMPORTED = os.environ.get("ZOO_TENSORRT_RELEASE")  # its bindings can be imported, and no other's
CLASSICS = [name for name in RELEASES if not name.startswith("rtx") and IMPORTED in (None, name)]
ADA = Driver("13.0", (Gpu("NVIDIA L4", 24 * 2**30, (8, 9)),))


class Machine:
    """A machine with one release of TensorRT, an L4, and a device made of memory."""

    def __init__(self, release: str) -> None:
        self.builder: Builder = RTX if release.startswith("rtx") else CLASSIC
        self.release = release
        self.cuda = FakeCuda()
        real = importlib.import_module("tensorrt_bindings") if IMPORTED else None
        version = f"{release.removeprefix('rtx-')}.0"
        self.module = fake_tensorrt(RELEASES[release], version, cuda=self.cuda, real=real)
        log = Log()
        self.tensorrt = TensorRT(self.builder, self.module, version, _logger(self.module, log), log)

    def load_tensorrt(self, builder: Builder) -> TensorRT:
        return self.tensorrt


@pytest.fixture(params=CLASSICS)
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return on_machine(Machine(request.param), monkeypatch, tmp_path)


def on_machine(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    for name in ("engine.build", "pipeline", "refit", "runners.tensorrt"):
        monkeypatch.setattr(f"export.{name}.cuda_driver", lambda: ADA)
    for name in ("engine.build", "refit", "runners.tensorrt"):
        monkeypatch.setattr(f"export.{name}.load_tensorrt", machine.load_tensorrt)
    monkeypatch.setattr("export.engine.build.installed_module", lambda row: row is machine.builder)
    monkeypatch.setattr("export.runners.tensorrt.open_cuda", lambda: machine.cuda)
    return machine


@pytest.fixture
def graph(tiny_graph: ModelProto) -> bytes:
    return tiny_graph.SerializeToString()


EVERYTHING = EngineSettings(
    profiles=(BatchProfile(min=1, opt=1, max=1), BatchProfile(min=2, opt=8, max=16)),
    workspace_mib=512,
    optimization_level=5,
    compat="ampere+",
    version_compatible=True,
    weights="stripped",
)


def test_a_plan_in_tf32_is_the_only_one_that_may_round_to_it(machine: Machine, graph: bytes) -> None:
    for tf32 in (False, True):
        settings = EngineSettings(tf32=tf32)
        engine = engine_from_onnx(graph, builder=choose_builder(), settings=settings)
        assert (int(machine.module.BuilderFlag.TF32) in fields_of(engine.plan)["flags"]) is tf32
        assert ("tf32" in engine.card.to_dict()["settings"]) is tf32


def test_every_setting_reaches_the_builder(machine: Machine, graph: bytes, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    engine = engine_from_onnx(
        graph,
        builder=choose_builder(),
        settings=EVERYTHING,
        timing_cache=tmp_path / "timings",
        on_progress=lambda *step: steps.append(step),
    )
    fields = fields_of(engine.plan)
    flags = machine.module.BuilderFlag
    wanted = {int(flags.REFIT_IDENTICAL), int(flags.STRIP_PLAN), int(flags.VERSION_COMPATIBLE)}
    assert set(fields["flags"]) == wanted, "and TF32 is off"
    assert fields["pools"] == {"WORKSPACE": 512 * 2**20} and fields["level"] == 5 and fields["compat"] == "AMPERE_PLUS"
    assert [[shape[0] for shape in each["pictures"]] for each in fields["profiles"]] == [[1, 1, 1], [2, 8, 16]]
    assert steps and steps[-1][1] == steps[-1][2]
    card = engine.card
    assert (card.settings, card.timing_cache, card.gpu, card.targets) == (EVERYTHING, "timings", "NVIDIA L4", ("8.9",))
    assert card.runs_on((12, 0)) and not card.runs_on((7, 5))


def test_one_compute_capability_is_refused_where_the_release_has_no_level_for_it(machine: Machine) -> None:
    settings = EngineSettings(compat="same")
    if machine.release == "10.0":
        with pytest.raises(ZooError, match="does not take --compat same: this release knows no level"):
            check_settings(CLASSIC, settings)
    else:
        check_settings(CLASSIC, settings)


def test_a_cancelled_build_ends_at_its_next_step_and_keeps_its_timings(
    machine: Machine, graph: bytes, tmp_path: Path
) -> None:
    cancelled = Event()
    steps: list[int] = []

    def cancel(phase: str, done: int, total: int) -> None:
        steps.append(done)
        cancelled.set()

    with pytest.raises(EngineBuildError, match="was cancelled"):
        plan_of_graph(
            machine.tensorrt,
            graph,
            EngineSettings(),
            timing_cache=tmp_path / "timings",
            on_progress=cancel,
            cancelled=cancelled,
        )
    assert steps == [1] and len(json.loads((tmp_path / "timings").read_text())["timings"]) == 1


def test_a_failed_build_is_our_error_with_a_log(machine: Machine, graph: bytes, tmp_path: Path) -> None:
    with pytest.raises(EngineBuildError, match="does not take this graph: node: Failed to parse"):
        engine_from_onnx(b"no graph", builder=CLASSIC)
    machine.module.state.fails = True
    with pytest.raises(EngineBuildError, match="could not build the engine: no tactic"):
        engine_from_onnx(graph, builder=CLASSIC, log_file=tmp_path / "s.log", cache=True)
    assert (tmp_path / "s.log").read_text() == "error: no tactic\n"
    machine.module.state.fails = False
    assert not engine_from_onnx(graph, builder=CLASSIC, cache=True).card.from_cache, "a failure is not kept"


def exported(checkpoint: Path, out: Path, **options: Any) -> ExportResult:
    return export_model(ExportOptions(model=str(checkpoint), out=out, num_pictures=6, **options))


def answers(artifact: Path, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    with open_runner(str(artifact)) as runner:
        return runner.infer(pictures)


def test_a_plan_of_several_profiles_answers_what_its_graph_does(
    machine: Machine,
    tiny_checkpoint: Path,
    tmp_path: Path,
    exports_this_graph: ModelProto,
    digit_pictures: NDArray[np.uint8],
) -> None:
    made = exported(tiny_checkpoint, tmp_path / "out", trt="fp16", profiles=((1, 1, 2), (4, 8, 12)))
    assert made.plan and made.passport.parity.plan and made.passport.parity.plan.passed
    with open_runner(str(made.plan)) as runner, OnnxRunner(made.onnx, device="cpu") as reference:
        assert runner.max_batch_size == 12
        wanted = reference.infer(digit_pictures)
        machine.module.calls.clear()
        for count in (1, 3, 12, 2):  # 3 is padded to 4
            np.testing.assert_allclose(runner.infer(digit_pictures[:count]), wanted[:count], rtol=0.1, atol=0.1)
    used = [call for call in machine.module.calls if call.startswith("profile ")]
    assert used == ["profile 1", "profile 0"]
    assert (made.onnx.with_suffix(".log")).is_file()


def test_a_stripped_plan_takes_its_weights_from_the_graph_beside_it(
    machine: Machine,
    tiny_checkpoint: Path,
    tmp_path: Path,
    exports_this_graph: ModelProto,
    digit_pictures: NDArray[np.uint8],
) -> None:
    options = {"trt": "fp16", "weights": "stripped", "version_compatible": True}
    made = exported(tiny_checkpoint, tmp_path / "out", **options)
    assert made.plan and made.passport.parity.plan and made.passport.parity.plan.passed
    with OnnxRunner(made.onnx, device="cpu") as reference:
        wanted = reference.infer(digit_pictures)
    np.testing.assert_allclose(answers(made.plan, digit_pictures), wanted, rtol=0.1, atol=0.1)
    made.onnx.unlink()
    with pytest.raises(ArtifactError, match=r"kept without weights, and tiny\.onnx, which has them, is not beside it"):
        answers(made.plan, digit_pictures)


def changed(graph: ModelProto) -> None:
    """Another training run's weights: the classifier's rows in another order."""
    for weight in graph.graph.initializer:
        if weight.name.startswith("classifier."):
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[::-1].copy(), weight.name))


def retrained(checkpoint: Path, folder: Path) -> Path:
    from zoo.weights.checkpoint import load_checkpoint, save_checkpoint

    network, card = load_checkpoint(checkpoint)
    weights = {
        name: value.flip(0).contiguous() if name.startswith("classifier.") else value
        for name, value in network.state_dict().items()
    }
    save_checkpoint(folder / "new.safetensors", weights, card)
    return folder / "new.safetensors"


def test_new_weights_go_into_an_old_plan_and_are_compared(
    machine: Machine,
    tiny_checkpoint: Path,
    tmp_path: Path,
    exports_this_graph: ModelProto,
    digit_pictures: NDArray[np.uint8],
) -> None:
    old = exported(tiny_checkpoint, tmp_path / "old", trt="fp16", weights="refittable")
    assert old.plan
    before = answers(old.plan, digit_pictures)
    new_weights = retrained(tiny_checkpoint, tmp_path)
    changed(exports_this_graph)
    machine.module.calls.clear()
    new = exported(new_weights, tmp_path / "new", refit=old.plan)
    assert "Builder.build_serialized_network" not in machine.module.calls
    assert new.plan and new.passport.builder and old.passport.files.plan
    assert new.passport.builder.refitted_from == old.passport.files.plan.sha256
    assert new.passport.parity.plan and new.passport.parity.plan.passed
    np.testing.assert_allclose(answers(new.plan, digit_pictures), before[:, ::-1], rtol=1e-5)
    np.testing.assert_array_equal(answers(old.plan, digit_pictures), before)
    again = machine.release not in ("10.0", "10.9")
    assert check_plan(new.plan).builder.built_as.weights == ("refittable" if again else "fixed")  # type: ignore[union-attr]
    assert fields_of(new.plan.read_bytes())["refittable"] is again


def test_weights_of_another_network_are_refused_before_long_work(
    machine: Machine, tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto
) -> None:
    old = exported(tiny_checkpoint, tmp_path / "old", trt="fp16", weights="refittable")
    fixed = exported(tiny_checkpoint, tmp_path / "fixed", trt="fp16")
    with pytest.raises(ArtifactError, match="was not built to take other weights"):
        exported(tiny_checkpoint, tmp_path / "new", refit=fixed.plan)
    with pytest.raises(ZooError, match="is for another network: size 36 instead of 48"):
        exported(tiny_checkpoint, tmp_path / "new", refit=old.plan, image_size=48)
    assert not (tmp_path / "new").exists()


def test_the_next_build_uses_the_timings_of_the_last(machine: Machine, graph: bytes, tmp_path: Path) -> None:
    file = tmp_path / "timings"
    engine_from_onnx(graph, builder=CLASSIC, timing_cache=file)
    stored = json.loads(file.read_text())
    assert stored["timings"]

    def another_build(phase: str, done: int, total: int) -> None:
        meanwhile = stored | {"timings": [*stored["timings"], "of another network"]}
        file.write_text(json.dumps(meanwhile))

    engine_from_onnx(graph, builder=CLASSIC, timing_cache=file, on_progress=another_build)
    assert "of another network" in json.loads(file.read_text())["timings"], "what was written meanwhile is kept"
    foreign = json.dumps({"version": "9.9", "timings": []})
    file.write_text(foreign)
    with pytest.raises(ZooError, match=r"timings has no timings for TensorRT"):
        engine_from_onnx(graph, builder=CLASSIC, timing_cache=file)
    assert file.read_text() == foreign


def test_timings_that_cannot_be_written_are_a_warning(machine: Machine, graph: bytes, tmp_path: Path) -> None:
    def replaced(phase: str, done: int, total: int) -> None:
        (tmp_path / "timings").write_text("something else")

    card = engine_from_onnx(graph, builder=CLASSIC, timing_cache=tmp_path / "timings", on_progress=replaced).card
    assert "timings was replaced by timings of another TensorRT" in card.warnings[0]
    assert (tmp_path / "timings").read_text() == "something else"


def test_a_refittable_plan_of_11_3_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = on_machine(Machine(CLASSICS[-1]), monkeypatch, tmp_path)
    machine.tensorrt = replace(machine.tensorrt, version="11.3.0.7")
    with pytest.raises(ZooError, match=r"11\.3\.0\.7 does not take --weights refittable: .* classifier's bias"):
        check_settings(CLASSIC, EngineSettings(weights="refittable"))
    check_settings(CLASSIC, EngineSettings(weights="stripped"))


def test_the_fake_refuses_what_the_bindings_would_refuse(machine: Machine) -> None:
    builder = machine.module.Builder(machine.tensorrt.logger)
    config = builder.create_builder_config()
    with pytest.raises(CallError, match="num_compute_capabilities"):
        config.num_compute_capabilities = 2
    with pytest.raises(CallError, match="pool_size is missing"):
        config.set_memory_pool_limit(machine.module.MemoryPoolType.WORKSPACE)
    with pytest.raises(CallError, match="flag is"):
        config.set_flag(machine.module.MemoryPoolType.WORKSPACE)


def test_releases_differ_as_our_code_believes() -> None:
    assert "SAME_COMPUTE_CAPABILITY" not in RELEASES["10.0"]["HardwareCompatibilityLevel"]["members"]
    assert "FP16" in RELEASES["10.16"]["BuilderFlag"]["members"]
    assert "FP16" not in RELEASES["11.0"]["BuilderFlag"]["members"], "precision belongs to the graph"
    assert "INCLUDE_REFIT" not in RELEASES["10.9"]["SerializationFlag"]["members"]


@pytest.mark.parametrize("release", RELEASES)
def test_no_name_of_our_code_is_missing_in_a_release(release: str) -> None:
    """What one release has and our code names, all have; the exceptions are asked for before they are used."""
    asked_for = {"SAME_COMPUTE_CAPABILITY", "INCLUDE_REFIT"}
    only_ahead_of_time = {"num_compute_capabilities", "set_compute_capability"}
    for kind, members in RELEASES["rtx-1.7"].items():
        known = set().union(*members.values())
        if kind == "ComputeCapability":
            continue
        wanted = (known & names_in_our_code()) - asked_for
        if not release.startswith("rtx"):
            wanted -= only_ahead_of_time
        missing = wanted - set().union(*RELEASES[release][kind].values())
        assert not missing, f"{kind} of TensorRT {release} lacks {missing}"


@pytest.mark.skipif(not IMPORTED and find_spec("tensorrt_rtx") is None, reason="no bindings are installed")
def test_the_installed_bindings_are_as_recorded() -> None:
    module = importlib.import_module("tensorrt_bindings" if IMPORTED else "tensorrt_rtx")
    release = release_of(module.__version__) if IMPORTED else f"rtx-{release_of(module.__version__)}"
    if release not in RELEASES:
        pytest.skip(f"{release} is not recorded")
    assert json.loads(json.dumps(read_release(module))) == RELEASES[release]
