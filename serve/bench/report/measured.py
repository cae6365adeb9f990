"""Owns results read back as typed rows, grouped by the device that gave them; it renders and measures nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal, TypeVar

from serve.bench.measure.decoding import DecodingRow
from serve.bench.measure.latency import LatencyRow
from serve.bench.measure.stages import StageRow
from zoo.errors import ZooError
from zoo.model.spec import Variant
from zoo.results import Kind, Result, Summary

Run = TypeVar("Run")
EVEN_WITHIN = 0.02


@dataclass(frozen=True, kw_only=True)
class StagesRun:
    """MBConv against Fused-MBConv on one device, at one size, batch and precision."""

    result: Result
    variant: Variant
    image_size: int
    batch_size: int
    precision: str
    rows: tuple[StageRow, ...]

    @property
    def conditions(self) -> str:
        """What two runs must share to be compared: “s at 384 px, batch 8, fp16”."""
        return f"{self.variant.id} at {self.image_size} px, batch {self.batch_size}, {self.precision}"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """What was timed: the runner's own words, and what its contract says."""

    artifact: str
    model: str
    backend: str
    device: str
    image_size: int
    num_classes: int


@dataclass(frozen=True, kw_only=True)
class LatencyRun:
    """Artifacts timed in turn in one call."""

    result: Result
    artifacts: tuple[Artifact, ...]
    rows: tuple[LatencyRow, ...]
    comparisons: tuple[Mapping[str, Any], ...]
    picture: Mapping[str, Any]
    decode: Summary
    prepare: Summary

    def rows_of(self, artifact: str) -> list[LatencyRow]:
        """One artifact's rows, smallest batch first."""
        return sorted((row for row in self.rows if row.artifact == artifact), key=lambda row: row.batch_size)


@dataclass(frozen=True, kw_only=True)
class TrainingRow:
    """Training at one image size."""

    image_size: int
    batch_size: int
    pictures_per_second: float
    ms_per_step: Summary


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """Training throughput at every stage's size."""

    result: Result
    rows: tuple[TrainingRow, ...]

    @property
    def label(self) -> str:
        """What was trained: “s (folder, bf16)”, or the result's name where it does not say."""
        known = [str(self.result.settings[key]) for key in ("recipe", "precision") if key in self.result.settings]
        model = self.result.settings.get("model")
        return f"{model} ({', '.join(known)})" if model and known else self.result.name


@dataclass(frozen=True, kw_only=True)
class PeerRow:
    """A network of ours and the same one of another project, with the same weights, in one pass.

    `ratio` is our time over theirs, round by round: below 1 we are faster.
    """

    network: str
    peer: str
    peer_name: str
    mode: str
    image_size: int
    batch_size: int
    ours: Summary
    theirs: Summary
    ratio: float

    @property
    def verdict(self) -> Literal["faster", "even", "slower"]:
        """Ours beside theirs; within 2 % is even, as medians of the same module timed twice differ by as much."""
        if abs(self.ratio - 1) <= EVEN_WITHIN:
            return "even"
        return "faster" if self.ratio < 1 else "slower"


@dataclass(frozen=True, kw_only=True)
class PeersRun:
    """Networks beside their twins of other projects, pair by pair in turn."""

    result: Result
    rows: tuple[PeerRow, ...]


@dataclass(frozen=True, kw_only=True)
class LoaderRow:
    """How fast one project's loader gives augmented pictures; `ratio` is ours over theirs, round by round.

    `ratio_for_gpu` is the same of our loader where flip and RandAugment are left to a GPU.
    """

    pipeline: str
    image_size: int
    n: int
    pictures_per_second: float
    cpu_ms_per_picture: float
    ratio: float
    ratio_for_gpu: float

    @property
    def is_ours(self) -> bool:
        """Whether it is this project's: `zoo`, or `zoo for a GPU`."""
        return self.pipeline.startswith("zoo")


@dataclass(frozen=True, kw_only=True)
class LoaderRun:
    """Loaders on the same pictures, cores and workers, in turn."""

    result: Result
    rows: tuple[LoaderRow, ...]

    @property
    def pictures(self) -> str:
        """What was read: pictures as they come, or as `zoo data pack` writes them."""
        return "packed pictures" if self.result.settings.get("packed") else "pictures"

    @property
    def peers(self) -> list[LoaderRow]:
        """The other projects' rows."""
        return [row for row in self.rows if not row.is_ours]


@dataclass(frozen=True, kw_only=True)
class DecodingRun:
    """Single operations on training pictures; `captions` say what a group of rows is, `absent` are libraries."""

    result: Result
    rows: tuple[DecodingRow, ...]
    captions: Mapping[str, str]
    absent: list[str]

    @property
    def groups(self) -> dict[str, list[DecodingRow]]:
        """The rows by group, in the order measured."""
        names = dict.fromkeys(row.group for row in self.rows)
        return {name: [row for row in self.rows if row.group == name] for name in names}

    @property
    def decoders(self) -> list[DecodingRow]:
        """Those that decode a whole picture, the fastest first."""
        return sorted((row for row in self.rows if (row.group, row.at) == ("decode", "full")), key=lambda row: row.ms)


@dataclass(frozen=True, kw_only=True)
class ArmRow:
    """One training run of a comparison: how it was trained, its validation accuracy 0…1 and its training time, s.

    `processor_seconds` are of the whole run, validation included; None of a run that was resumed.
    """

    arm: str
    seed: int
    top1: float
    seconds: float
    processor_seconds: float | None
    epochs: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class ArmsRun:
    """The same network trained in several ways with the same seeds; every arm has every seed."""

    result: Result
    rows: tuple[ArmRow, ...]

    @property
    def arms(self) -> list[str]:
        """Their names, in the order measured; the last one is the control the others are held against."""
        return list(dict.fromkeys(row.arm for row in self.rows))

    def of(self, arm: str) -> list[ArmRow]:
        """The runs of one arm, by seed."""
        return sorted((row for row in self.rows if row.arm == arm), key=lambda row: row.seed)

    def time_share(self, arm: str) -> float:
        """Median over the seeds of an arm's training time over the control's with the same seed."""
        pairs = zip(self.of(arm), self.of(self.arms[-1]), strict=True)
        return median(one.seconds / control.seconds for one, control in pairs)


@dataclass(frozen=True, kw_only=True)
class DeviceRuns:
    """Everything measured on one device."""

    device: str
    stages: list[StagesRun] = field(default_factory=list)
    latency: list[LatencyRun] = field(default_factory=list)
    training: list[TrainingRun] = field(default_factory=list)
    peers: list[PeersRun] = field(default_factory=list)
    loaders: list[LoaderRun] = field(default_factory=list)
    decoding: list[DecodingRun] = field(default_factory=list)
    progressive: list[ArmsRun] = field(default_factory=list)

    @property
    def results(self) -> list[Result]:
        """The results behind the rows."""
        return [run.result for field_name, _ in _READERS.values() for run in getattr(self, field_name)]


def group_by_device(results: Iterable[Result]) -> list[DeviceRuns]:
    """Type every result's rows and group them, devices in alphabetical order.

    Raises:
        ZooError: a result whose data lacks what its kind holds.
    """
    devices: dict[str, DeviceRuns] = {}
    for result in results:
        runs = devices.setdefault(result.device, DeviceRuns(device=result.device))
        field_name, read = _READERS[result.kind]
        getattr(runs, field_name).append(_typed(read, result))
    return [devices[device] for device in sorted(devices)]


# Kinds that no `zoo bench` makes, but a script.
_SCRIPTS: tuple[Kind, ...] = ("peers", "loader", "decoding", "progressive")
_COMMANDS: dict[Kind, str] = {kind: f"python benchmarks/{kind}.py" for kind in _SCRIPTS}


def _typed(read: Callable[[Result], Run], result: Result) -> Run:
    try:
        return read(result)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ZooError(
            f"The {result.kind} result {result.name!r} of {result.device} is damaged or of another version: "
            f"{type(error).__name__} {error}.",
            f"Measure again with `{_COMMANDS.get(result.kind, f'zoo bench {result.kind}')}`, or take the file away.",
        ) from error


def _stages_run(result: Result) -> StagesRun:
    data = result.data
    return StagesRun(
        result=result,
        variant=Variant.from_dict(data["variant"]),
        image_size=data["image_size"],
        batch_size=data["batch_size"],
        precision=data["precision"],
        rows=_some(StageRow.from_dict(row) for row in data["rows"]),
    )


def _latency_run(result: Result) -> LatencyRun:
    data = result.data
    picture = dict(data["picture"])
    return LatencyRun(
        result=result,
        artifacts=_some(Artifact(**artifact) for artifact in data["artifacts"]),
        rows=_some(LatencyRow.from_dict(row) for row in data["rows"]),
        comparisons=tuple(data["comparisons"]),
        decode=Summary.from_dict(picture.pop("decode")),
        prepare=Summary.from_dict(picture.pop("prepare")),
        picture=picture,
    )


def _training_run(result: Result) -> TrainingRun:
    rows = (
        TrainingRow(
            image_size=row["image_size"],
            batch_size=row["batch_size"],
            pictures_per_second=row["pictures_per_second"],
            ms_per_step=Summary.from_dict(row["ms_per_step"]),
        )
        for row in result.data["rows"]
    )
    return TrainingRun(result=result, rows=_some(rows))


def _peers_run(result: Result) -> PeersRun:
    rows = (
        PeerRow(
            network=row["network"],
            peer=row["peer"],
            peer_name=row["peer_name"],
            mode=row["mode"],
            image_size=row["image_size"],
            batch_size=row["batch_size"],
            ours=Summary.from_dict(row["ours"]),
            theirs=Summary.from_dict(row["theirs"]),
            ratio=row["ours_over_theirs"]["p50"],
        )
        for row in result.data["rows"]
    )
    return PeersRun(result=result, rows=_some(rows))


def _loader_run(result: Result) -> LoaderRun:
    rows = (
        LoaderRow(
            pipeline=row["pipeline"],
            image_size=row["image_size"],
            n=row["n"],
            pictures_per_second=row["pictures_per_second"]["p50"],
            cpu_ms_per_picture=row["cpu_ms_per_picture"]["p50"],
            ratio=row["ours_over_theirs"]["p50"],
            ratio_for_gpu=row["for_gpu_over_theirs"]["p50"],
        )
        for row in result.data["rows"]
    )
    return LoaderRun(result=result, rows=_some(rows))


def _decoding_run(result: Result) -> DecodingRun:
    data = result.data
    run = DecodingRun(
        result=result,
        rows=_some(DecodingRow.from_dict(row) for row in data["rows"]),
        captions=dict(data["captions"]),
        absent=sorted(data["absent"]),
    )
    if not run.decoders:
        raise ValueError("no decoder of whole pictures")
    return run


def _arms_run(result: Result) -> ArmsRun:
    rows = _some(
        ArmRow(
            arm=row["arm"],
            seed=row["seed"],
            top1=row["top1"],
            seconds=row["seconds"],
            processor_seconds=row["processor_seconds"],
            epochs=tuple(row["epochs"]),
        )
        for row in result.data["rows"]
    )
    run = ArmsRun(result=result, rows=rows)
    if len({tuple(row.seed for row in run.of(arm)) for arm in run.arms}) != 1:
        raise ValueError("arms with different seeds")
    return run


# Where a kind's results are kept in `DeviceRuns`, in the order a page tells of them, and what reads them.
_READERS: dict[Kind, tuple[str, Callable[[Result], Any]]] = {
    "stages": ("stages", _stages_run),
    "latency": ("latency", _latency_run),
    "train": ("training", _training_run),
    "progressive": ("progressive", _arms_run),
    "peers": ("peers", _peers_run),
    "loader": ("loaders", _loader_run),
    "decoding": ("decoding", _decoding_run),
}


def _some(rows: Iterable[Run]) -> tuple[Run, ...]:
    """Rows of a result; a result without any is damaged."""
    found = tuple(rows)
    if not found:
        raise ValueError("no rows")
    return found
