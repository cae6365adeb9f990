"""Owns the way from a model to its published artifacts: resolve, export, check, build, check, and only then publish.

Everything is made in a hidden folder beside the destination and renamed into place at the end, the passport last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from export.contract import Contract
from export.engine.build import AUTO, BatchProfile, Plan, build_plan, choose_builder
from export.graph import export_onnx
from export.parity import NUM_PICTURES, Parity, Probe, choose_pictures, infer_all, judge
from export.passport import FileCard, Passport, passport_path, write_passport
from export.precision.rows import Precision, find_precision
from export.random_weights import NUM_CLASSES, make_random_network
from export.runners.onnx_runtime import OnnxRunner
from export.runners.pytorch import TorchRunner
from export.runners.runner import Runner
from export.watch import Silent, Watch
from zoo.errors import EngineBuildError, MissingCapabilityError, VerdictError, ZooError
from zoo.files import replace_file, sha256_of
from zoo.machine import cuda_driver, environment
from zoo.model.network import Network
from zoo.model.spec import Preprocessing, Variant
from zoo.weights.checkpoint import Checkpoint
from zoo.weights.resolve import checkpoint_path, find_model_variant, load_model

FP32 = find_precision("fp32")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to export and how.

    `out` is a folder, or a path ending in .onnx. `trt` is the precision of the plan, None for no plan. `data` are
    pictures for the parity gate (see `export.parity.choose_pictures`). `random_weights` is for latency work only;
    `parity` False skips the gate. Both are recorded in the passport.
    """

    model: str
    out: Path = Path()
    trt: str | None = None
    profile: BatchProfile = field(default_factory=BatchProfile)
    builder: str = AUTO
    targets: tuple[str, ...] = ()
    data: str | None = None
    num_pictures: int = NUM_PICTURES
    image_size: int | None = None
    random_weights: bool = False
    parity: bool = True


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """The published files and their passport."""

    onnx: Path
    plan: Path | None
    passport_file: Path
    passport: Passport

    def to_dict(self) -> dict[str, Any]:
        """What `zoo export --json` prints."""
        return {
            "onnx": str(self.onnx),
            "plan": self.plan and str(self.plan),
            "passport": str(self.passport_file),
            "parity": dict(self.passport.parity),
            "builder": self.passport.builder and dict(self.passport.builder),
        }


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A network to export, with everything known of its origin."""

    network: Network
    contract: Contract
    card: Checkpoint | None
    checkpoint: Mapping[str, Any]
    label: str


@dataclass(frozen=True)
class _Gate:
    """The reference's answers on the chosen pictures, computed once for every candidate."""

    backend: str
    probe: Probe
    logits: NDArray[np.float32]

    def check(self, candidate: Runner, name: str, precision: Precision) -> Parity:
        """Compare a candidate with the reference.

        Raises:
            VerdictError: it failed; carries the numbers.
        """
        answers = infer_all(candidate, self.probe.pictures)
        parity = judge(
            self.logits, answers, precision.tolerance, names=(self.backend, candidate.backend, self.probe.name)
        )
        if parity.passed:
            return parity
        raise VerdictError(
            f"{name} differs from the checkpoint on {self.probe.name}: {'; '.join(parity.failures)} "
            f"({parity.summary()}).",
            "Nothing was written. --data D compares on other pictures; --no-parity exports anyway and says so in the "
            "passport.",
        )


def export_model(options: Options, *, watch: Watch | None = None) -> ExportResult:
    """Export a model to ONNX, and to a TensorRT plan if asked, after comparing both with the checkpoint.

    Raises:
        VerdictError: parity failed; nothing was written.
        MissingCapabilityError, EngineBuildError: the plan could not be built; the .onnx and its passport were written.
        ZooError: anything else that was wrong with the options, the checkpoint or the data; nothing was written.
    """
    watch = watch or Silent()
    precision = find_precision(options.trt) if options.trt else None
    folder, stem_given = _destination(options.out)
    source = _resolve(options, watch)
    stem = stem_given or source.contract.model
    with _staging(folder, stem) as staging:
        job = _Job(options, source, staging / f"{stem}.onnx", watch)
        job.export()
        failure = job.build(precision) if precision else None
        write_passport(passport_path(job.onnx_file), job.passport())
        published = [folder / file.name for file in _publish(staging, folder, stem, watch)]
    if failure:
        raise failure
    return ExportResult(
        onnx=folder / f"{stem}.onnx",
        plan=next((file for file in published if file.suffix == ".plan"), None),
        passport_file=folder / f"{stem}.json",
        passport=job.passport(),
    )


class _Job:
    """One export in its staging folder: what has been made so far."""

    def __init__(self, options: Options, source: _Source, onnx_file: Path, watch: Watch) -> None:
        self.options = options
        self.source = source
        self.onnx_file = onnx_file
        self.plan_file = onnx_file.with_suffix(".plan")
        self.watch = watch
        self.environment = environment()
        self.graph: ModelProto | None = None
        self.plan: Plan | None = None
        self.plan_precision = FP32
        self.parity: dict[str, Parity | None] = {"onnx": None, "graph": None, "plan": None}
        self.notes = dict.fromkeys(self.parity, "not run: no plan was asked for")
        self.gate: _Gate | None = None
        self._cards: dict[Path, FileCard] = {}

    def export(self) -> None:
        """Make the .onnx and compare it with PyTorch."""
        contract = self.source.contract
        self.watch.step(f"Export {self.source.label} to ONNX at {contract.preprocessing.image_size} px")
        self.graph = export_onnx(self.source.network, contract, checkpoint=self.source.checkpoint)
        self.onnx_file.write_bytes(self.graph.SerializeToString())
        if not self.options.parity:
            self.notes = dict.fromkeys(self.parity, "not run: --no-parity")
            return
        self.gate = self._open_gate()
        self.watch.step("Compare ONNX Runtime with PyTorch")
        with OnnxRunner(self.onnx_file, device="cpu") as candidate:
            self.parity["onnx"] = self.gate.check(candidate, self.onnx_file.name, FP32)

    def _open_gate(self) -> _Gate:
        contract = self.source.contract
        self.watch.step("Choose pictures for the parity gate")
        probe = choose_pictures(
            self.source.card, contract.preprocessing, data=self.options.data, count=self.options.num_pictures
        )
        self.watch.step(f"Run PyTorch on {len(probe.pictures)} pictures of {probe.name}")
        # Always on the CPU: a GPU would compute the reference's convolutions in TF32.
        with TorchRunner(self.source.network, contract, device="cpu") as reference:
            return _Gate(reference.backend, probe, infer_all(reference, probe.pictures))

    def build(self, precision: Precision) -> ZooError | None:
        """Make the plan and compare what can be compared; return why there is none where TensorRT is the reason."""
        assert self.graph is not None
        if precision is not FP32:
            self.watch.step(f"Convert the graph to {precision.id}")
        graph = precision.transform(self.graph).SerializeToString()
        if self.gate:
            self._check_graph(graph, precision)
        try:
            self.watch.step(f"Build the {precision.id} plan")
            backend = choose_builder(self.options.builder, targets=self.options.targets)
            self.plan = build_plan(
                graph,
                profile=self.options.profile,
                backend=backend,
                targets=self.options.targets,
                on_progress=self.watch.progress,
            )
        except (MissingCapabilityError, EngineBuildError) as error:
            self.notes["plan"] = f"not run: {error.problem}"
            return type(error)(f"{error.problem} {self.onnx_file.name} was written all the same.", error.hint)
        self.plan_precision = precision
        self.plan_file.write_bytes(self.plan.data)
        self._check_plan(self.plan)
        return None

    def _check_graph(self, graph: bytes, precision: Precision) -> None:
        assert self.gate is not None
        if precision is FP32:
            self.parity["graph"] = self.parity["onnx"]
            return
        self.watch.step(f"Compare the {precision.id} graph with PyTorch")
        name = f"the {precision.id} graph"
        with OnnxRunner(graph, device="cpu", artifact=name) as candidate:
            self.parity["graph"] = self.gate.check(candidate, name, precision)

    def _check_plan(self, plan: Plan) -> None:
        if self.gate is None:
            return
        driver = cuda_driver()
        where = f"`zoo evaluate {self.plan_file.name} --data …` on the target checks it"
        if driver is None:
            self.notes["plan"] = f"not run: this machine has no GPU; {where}"
            return
        if ".".join(map(str, driver.gpus[0].compute_capability)) not in plan.targets:
            self.notes["plan"] = f"not run: the plan is not for this machine's {driver.gpus[0].name}; {where}"
            return
        from export.runners.tensorrt import TensorRTRunner

        self.watch.step("Compare the plan with PyTorch")
        write_passport(passport_path(self.plan_file), self.passport())  # the runner checks the plan against it
        with TensorRTRunner(self.plan_file) as candidate:
            self.parity["plan"] = self.gate.check(candidate, self.plan_file.name, self.plan_precision)

    def passport(self) -> Passport:
        """Describe what has been made so far."""
        compared = {name: parity and parity.to_dict() for name, parity in self.parity.items()}
        notes = {name: self.notes[name] for name, parity in self.parity.items() if parity is None}
        return Passport(
            contract=self.source.contract,
            onnx=self._card(self.onnx_file, "fp32"),
            plan=self._card(self.plan_file, self.plan_precision.id) if self.plan else None,
            builder=self.plan.to_dict() if self.plan else None,
            parity={**compared, "notes": notes},
            checkpoint=self.source.checkpoint,
            random_weights=self.options.random_weights,
            environment=self.environment,
        )

    def _card(self, file: Path, precision: str) -> FileCard:
        if file not in self._cards:
            self._cards[file] = FileCard.of(file, precision)
        return self._cards[file]


def _resolve(options: Options, watch: Watch) -> _Source:
    if options.random_weights:
        return _random_source(options, watch)
    watch.step(f"Load {options.model}")
    network, card, label = load_model(options.model)
    contract = Contract(
        model=card.variant.id,
        classes=card.classes,
        preprocessing=_at_size(card.preprocessing, card.variant, options.image_size),
    )
    path = checkpoint_path(options.model)
    provenance = dict(card.provenance)
    if provenance.get("data"):
        provenance["data"] = Path(provenance["data"]).name  # artifacts travel; paths of this machine stay here
    checkpoint = {
        "source": path.name if path else label,
        "sha256": sha256_of(path) if path else provenance.get("sha256"),
        "provenance": provenance,
    }
    return _Source(network=network, contract=contract, card=card, checkpoint=checkpoint, label=label)


def _random_source(options: Options, watch: Watch) -> _Source:
    variant = find_model_variant(options.model)
    preprocessing = _at_size(variant.preprocessing, variant, options.image_size)
    watch.step(f"Make {variant.id} with random weights and settle its norms")
    classes = tuple(f"class {index}" for index in range(NUM_CLASSES))
    return _Source(
        network=make_random_network(variant, preprocessing),
        contract=Contract(model=variant.id, classes=classes, preprocessing=preprocessing),
        card=None,
        checkpoint={"source": "random weights", "sha256": None, "provenance": {}},
        label=f"{variant.id} with random weights",
    )


def _at_size(preprocessing: Preprocessing, variant: Variant, image_size: int | None) -> Preprocessing:
    size = image_size or preprocessing.image_size
    if size > variant.max_size:
        raise ZooError(
            f"{size} px is above the {variant.max_size} px at which inference with {variant.id} is capped.",
            f"Choose --image-size {variant.max_size} or less.",
        )
    return preprocessing.at(size)


def _destination(out: Path) -> tuple[Path, str | None]:
    """The folder, and the stem where `out` names a file."""
    if out.suffix == ".onnx":
        return out.parent, out.stem
    if out.suffix in (".plan", ".json", ".safetensors") or out.is_file():
        raise ZooError(
            f"--out {out} is neither a folder nor a path ending in .onnx.", "The .plan is put beside the .onnx."
        )
    return out, None


@contextmanager
def _staging(folder: Path, stem: str) -> Iterator[Path]:
    """A hidden folder inside the destination, so that publishing is a rename; gone afterwards, whatever happens."""
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = TemporaryDirectory(prefix=f".{stem}-export-", dir=folder)
    except OSError as error:
        raise ZooError(f"Cannot write to {folder}: {error.strerror}.", "Choose another place with --out.") from error
    try:
        with temporary as staging:
            yield Path(staging)
    finally:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


# In the order of publication.
PUBLISHED = (".onnx", ".plan", ".json")


def _publish(staging: Path, folder: Path, stem: str, watch: Watch) -> list[Path]:
    """Rename what was made into place, the passport last: until then the old one does not vouch for the new files.

    A plan of an earlier export goes: the new passport does not know it, so that nothing would load it.

    Raises:
        ZooError: a folder is in the way of one; nothing is published.
    """
    made = [file for suffix in PUBLISHED if (file := staging / f"{stem}{suffix}").exists()]
    for file in made:
        if (folder / file.name).is_dir():
            raise ZooError(f"Cannot write {folder / file.name}: it is a folder.", "Move it, or choose another --out.")
    stale = folder / f"{stem}.plan"
    if not (staging / stale.name).exists() and stale.is_file():
        watch.step(f"Remove {stale}, which belongs to an earlier export")
        stale.unlink()
    return [replace_file(file, folder / file.name) for file in made]
