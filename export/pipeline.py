"""Owns the way from a model to its published artifacts: export, check, build, check, and only then publish."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto

from export.backends import choose_backend, find_backend
from export.contract import OPSET
from export.divergence import find_divergence
from export.engine.build import Engine, check_settings, choose_builder, engine_from_onnx
from export.engine.builders import BuildCard, check_batches
from export.graph import export_onnx
from export.options import ExportOptions
from export.parity import Gate, Probe, choose_pictures, infer_all
from export.passport import (
    BackendParity,
    FileCard,
    FileCards,
    Parities,
    Parity,
    Passport,
    Quantizations,
    passport_path,
    write_passport,
)
from export.precision.fp16 import to_fp16
from export.precision.qdq import ONNX_RUNTIME, TENSORRT, Layout
from export.precision.rows import Precision, find_precision
from export.precision.scores import QuantizationCard
from export.precision_page import write_report
from export.precision_report import judging_pictures
from export.quantized import Quantization, calibration_pictures, check_kept, check_quantization
from export.refit import OldPlan, check_fits, check_weights_apart, open_old_plan, refit_plan
from export.runners.onnx_runtime import OnnxRunner
from export.runners.open import open_runner
from export.runners.pytorch import TorchRunner
from export.signature import load_signing_key, sign_passport
from export.size_cost import SizeCost, size_cost
from export.source import Source, find_source
from export.staging import LOG, check_free, destination, publish, staging
from export.triton.repository import add_version, planned_entry, write_service
from export.watch import Watch
from export.weights_apart import as_message_or_file, write_graph
from zoo.data.pictures import Pictures
from zoo.errors import EngineBuildError, MissingCapabilityError, VerdictError, ZooError
from zoo.files import check_folder, check_temporary_folder, write_bytes
from zoo.machine import cuda_driver, environment
from zoo.model.counts import largest_map
from zoo.options import typed_command
from zoo.rows import Row

FP32 = find_precision("fp32")
# The first opset whose QuantizeLinear has float16 beside it, as the rest of a plan of 8 bits is.
HALF_PAIRS_OPSET = 19


@dataclass(frozen=True, kw_only=True)
class ExportResult(Row):
    """The published files, and what their passport says."""

    onnx: Path
    plan: Path | None
    passport_file: Path
    passport: Passport
    cost: SizeCost
    report: Path | None = None
    verdict: str | None = None
    triton: Path | None = None
    kserve: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """What `zoo export --json` prints: the files, and of the passport what was found and built."""
        files = {"onnx": str(self.onnx), "plan": self.plan and str(self.plan), "passport": str(self.passport_file)}
        files |= {
            name: str(path) for name in ("report", "verdict", "triton", "kserve") if (path := getattr(self, name))
        }
        passport = self.passport.to_dict()
        return files | {name: passport[name] for name in ("parity", "builder")} | {"cost": self.cost.to_dict()}


def export_model(options: ExportOptions, *, watch: Watch | None = None) -> ExportResult:
    """Export a model to ONNX, and to a TensorRT plan if asked, after comparing both with the checkpoint.

    Everything is made in a hidden folder beside its destination and renamed into place at the end.

    Raises:
        VerdictError: parity failed; nothing was written.
        MissingCapabilityError, EngineBuildError: the plan could not be built; the .onnx and its passport were written.
        ZooError: anything else that was wrong with the options, the checkpoint or the data; nothing was written.
    """
    watch = watch or Watch()
    check_temporary_folder()
    check_quantization(options)
    _check_opset(options)
    key = load_signing_key(options.sign) if options.sign else None
    folder, stem_given = destination(options.out)
    check_folder(folder)
    old = open_old_plan(options.refit) if options.refit else None
    if options.trt:
        _check_build(options)
    for backend in options.backends:
        choose_backend("graph.onnx", backend)  # what is not installed is told before anything is made
    source = find_source(options, watch)
    check_kept(options.keep, source.network)
    if old:
        check_fits(old, source.contract)
    if options.trt:
        image_size = source.contract.preprocessing.image_size
        for batches in options.profiles:
            check_batches(batches, largest_map(source.network.variant, image_size), image_size)
    stem = stem_given or source.contract.model
    check_free(folder, stem)
    entry = planned_entry(options, stem, source.contract)
    with staging(folder, stem) as made:
        job = _Job(options, source, made / f"{stem}.onnx", watch, old)
        graph = job.export()
        precision = old.precision if old else find_precision(options.trt) if options.trt else None
        failure = job.build(graph, precision) if precision else None
        passport = job.describe()
        verdict = job.verdict
        if key:
            sign_passport(passport_path(job.onnx_file), key)
        publish(made, folder, stem, watch)
    if failure:
        raise failure
    onnx, plan = folder / f"{stem}.onnx", folder / f"{stem}.plan" if passport.files.plan else None
    return ExportResult(
        onnx=onnx,
        plan=plan,
        passport_file=folder / f"{stem}.json",
        passport=passport,
        cost=size_cost(
            source.network.variant,
            source.contract.preprocessing.image_size,
            source.own_size,
            num_classes=len(source.contract.classes),
        ),
        report=folder / f"{stem}.quantization.html" if verdict else None,
        verdict=verdict,
        triton=add_version(entry, plan or onnx) if entry else None,
        kserve=write_service(options.kserve, entry, passport.builder) if entry and options.kserve else None,
    )


def _check_opset(options: ExportOptions) -> None:
    """Refuse, before long work, an opset without the operators of a precision; by default it is raised to them."""
    for name, is_plan in ((options.precision, False), (options.trt, True)):
        if not name:
            continue
        precision = find_precision(name)
        first = max(precision.first_opset, HALF_PAIRS_OPSET if is_plan and precision.calibrated else 0)
        if options.opset < first and options.opset != OPSET:
            raise ZooError(
                f"--opset {options.opset} has no operators for {name}{' in a plan' if is_plan else ''}: {first} does.",
                f"Choose --opset {first}, or leave it out.",
            )


def _check_build(options: ExportOptions) -> None:
    """Refuse, before long work, what cannot be built; that nothing can build here is said when the .onnx is written."""
    settings, precision = options.engine, find_precision(str(options.trt))
    if settings.weights != "fixed":
        check_weights_apart(precision, f"--weights {settings.weights}")
    with suppress(MissingCapabilityError):
        builder = choose_builder(options.builder, targets=settings.targets)
        check_settings(builder, settings, options.timing_cache, least_capability=precision.least_capability)


class _Job:
    """One export in its staging folder: what has been made and compared so far."""

    def __init__(
        self, options: ExportOptions, source: Source, onnx_file: Path, watch: Watch, old: OldPlan | None
    ) -> None:
        self.options = options
        self.old = old
        self.source = source
        self.onnx_file = onnx_file
        self.plan_file = onnx_file.with_suffix(".plan")
        self.watch = watch
        self.environment = environment()
        self.gate: Gate | None = None
        self.cards: dict[str, FileCard] = {}
        self.built: BuildCard | None = None
        self.parity: dict[str, Parity] = {}
        self.backends: list[BackendParity] = []
        self.quantized: dict[str, QuantizationCard] = {}
        self.quantization: Quantization | None = None
        self.verdict: str | None = None  # of the report
        why = "no plan was asked for" if options.parity else "--no-parity"
        self.notes = dict.fromkeys(("onnx", "graph", "plan"), f"not run: {why}")

    def export(self) -> ModelProto:
        """Make the .onnx and compare it with PyTorch; return its graph."""
        contract = self.source.contract
        probe = self._choose_pictures() if self.options.parity else None
        judged, calibration = self._choose_for_quantization()
        self.watch.step(f"Export {self.source.label} to ONNX at {contract.preprocessing.image_size} px")
        checkpoint = self.source.card.to_dict()
        graph = export_onnx(self.source.network, contract, checkpoint=checkpoint, opset=self.options.opset)
        self.quantization = Quantization(self.options, self.source, graph, self.watch, calibration)
        precision = find_precision(self.options.precision)
        if probe:
            self.gate = self._open_gate(probe)
            found = self._check(self.gate, graph, FP32, self.onnx_file.name)
        # Nobody but TensorRT computes in float8; ONNX Runtime runs it by reference.
        layout = TENSORRT if precision.id == "fp8" else ONNX_RUNTIME
        written, compared = self._convert(graph, precision, "onnx", layout)
        if self.gate:
            same = precision == FP32
            self.parity["onnx"] = found if same else self._check(self.gate, compared, precision, self.onnx_file.name)
        self.cards["onnx"] = FileCard.of(self.onnx_file, precision.id, write_graph(written, self.onnx_file))
        self._check_backends(precision)
        if judged:
            self.verdict = write_report(self.quantization, judged, self.onnx_file, self.environment).verdict
        return graph

    def _convert(
        self, graph: ModelProto, precision: Precision, artifact: str, layout: Layout
    ) -> tuple[ModelProto, ModelProto]:
        """The graph in a precision, and the one that ONNX Runtime compares in its place."""
        if precision.calibrated:
            assert self.quantization
            converted, self.quantized[artifact] = self.quantization.make(precision, layout)
            # TensorRT computes what is left in half precision. ONNX Runtime's own rounding of such graphs differs from
            # release to release, so it compares the one in which the rest is float32.
            return (to_fp16(converted) if artifact == "plan" else converted), converted
        if precision.transform:
            self.watch.step(f"Convert the graph to {precision.id}")
        converted = precision.apply(graph)
        return converted, (precision.comparable(graph) if precision.stand_in else converted)

    def _check(self, gate: Gate, graph: ModelProto, precision: Precision, name: str) -> Parity:
        what = "ONNX Runtime" if precision == FP32 else f"the {precision.id} graph"
        self.watch.step(f"Compare {what} with PyTorch")
        with OnnxRunner(graph, device="cpu", artifact=name) as candidate:
            try:
                return gate.check(candidate, name, precision)
            except VerdictError as error:
                self.watch.step("Look for the first block that differs")
                source = self.source
                found = find_divergence(source.network, source.contract, graph, precision, gate.probe.pictures)
                raise VerdictError(f"{error.problem} {found.words(FP32.tolerance.max_error)}", error.hint) from error

    def _check_backends(self, precision: Precision) -> None:
        """Compare the .onnx that was written in every other back end asked for."""
        for backend in map(find_backend, self.options.backends):
            assert self.gate
            self.watch.step(f"Compare {backend.id} with PyTorch")
            allowed = (backend.computes or precision) if precision == FP32 else precision
            with open_runner(str(self.onnx_file), backend=backend.id) as candidate:
                found = self.gate.check(candidate, f"{self.onnx_file.name} in {backend.id}", allowed)
            self.backends.append(BackendParity(backend=backend.id, parity=found))

    def _choose_pictures(self) -> Probe:
        self.watch.step("Choose pictures for the parity gate")
        source, options = self.source, self.options
        return choose_pictures(
            source.checkpoint, source.contract.preprocessing, data=options.data, count=options.num_pictures
        )

    def _choose_for_quantization(self) -> tuple[Pictures | None, Pictures | None]:
        """Those that the report judges by, and those to calibrate on; that there are none is said before long work."""
        options, source = self.options, self.source
        judged = judging_pictures(source, options.data) if options.report else None
        chosen = {options.precision, self.old.precision.id if self.old else options.trt} - {None}
        calibrates = options.report or any(find_precision(str(id)).calibrated for id in chosen)
        return judged, calibration_pictures(options, source) if calibrates else None

    def _open_gate(self, probe: Probe) -> Gate:
        self.watch.step(f"Run PyTorch on {len(probe.pictures)} pictures of {probe.name}")
        # Always on the CPU: a GPU would compute the reference's convolutions in TF32.
        with TorchRunner(self.source.network, self.source.contract, device="cpu") as reference:
            return Gate(reference.backend, probe, infer_all(reference, probe.pictures))

    def build(self, graph: ModelProto, precision: Precision) -> ZooError | None:
        """Make the plan and compare what can be compared; return the error where TensorRT is why there is no plan."""
        converted, compared = self._convert(graph, precision, "plan", TENSORRT)
        if self.gate:
            # What TensorRT alone computes otherwise is the graph that was compared already.
            of_graph = FP32.id if precision.of_plans else precision.id
            same = of_graph == self.options.precision and not precision.calibrated
            name = f"the {precision.id} graph"
            self.parity["graph"] = self.parity["onnx"] if same else self._check(self.gate, compared, precision, name)
        try:
            engine = self._make_engine(converted, precision)
        except (MissingCapabilityError, EngineBuildError) as error:
            self.notes["plan"] = f"not run: {error.problem}"
            problem = error.problem.rstrip(".")
            return type(error)(f"{problem}. {self.onnx_file.name} was written all the same.", error.hint)
        write_bytes(self.plan_file, engine.plan)
        self.cards["plan"], self.built = FileCard.of(self.plan_file, precision.id), engine.card
        if self.gate:
            self._check_plan(self.gate, engine.card, precision)
        return None

    def _make_engine(self, converted: ModelProto, precision: Precision) -> Engine:
        with as_message_or_file(converted) as graph:
            if self.old:
                self.watch.step(f"Put the weights into {self.old.path.name}")
                return refit_plan(self.old, graph)
            self.watch.step(f"Build the {precision.id} plan")
            settings = self.options.engine
            return engine_from_onnx(
                graph,
                builder=choose_builder(self.options.builder, targets=settings.targets),
                settings=settings,
                timing_cache=self.options.timing_cache,
                cache=self.options.cache,
                least_capability=precision.least_capability,
                log_file=self.onnx_file.with_suffix(LOG),
                on_progress=self.watch.progress,
            )

    def _check_plan(self, gate: Gate, built: BuildCard, precision: Precision) -> None:
        driver = cuda_driver()
        where = f"`zoo evaluate {self.plan_file.name} --data …` on the target checks it"
        if driver is None:
            self.notes["plan"] = f"not run: this machine has no GPU; {where}"
            return
        if not built.runs_on(driver.gpus[0].compute_capability):
            self.notes["plan"] = f"not run: the plan is not for this machine's {driver.gpus[0].name}; {where}"
            return
        from export.runners.tensorrt import TensorRTRunner

        self.watch.step("Compare the plan with PyTorch")
        self.describe()  # the runner checks the plan against it
        with TensorRTRunner(self.plan_file) as candidate:
            self.parity["plan"] = gate.check(candidate, self.plan_file.name, precision)

    def describe(self) -> Passport:
        """Write the passport of what has been made so far, beside it; return it."""
        notes = {name: why for name, why in self.notes.items() if name not in self.parity}
        passport = Passport(
            contract=self.source.contract,
            files=FileCards(**self.cards),
            builder=self.built,
            parity=Parities(**self.parity, notes=notes, backends=tuple(self.backends)),
            checkpoint=self.source.card,
            random_weights=self.options.random_weights,
            environment=self.environment,
            quantization=Quantizations(**self.quantized),
            command=typed_command(),
        )
        write_passport(passport_path(self.onnx_file), passport)
        return passport
