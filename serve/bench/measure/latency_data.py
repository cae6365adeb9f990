"""Owns the rows of a result of `zoo bench latency`: what was timed, how, every round, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from serve.bench.measure.picture import PictureTimes
from serve.bench.measure.ratio import Ratio, paired_ratio
from serve.bench.options import Driver, ScenarioId
from zoo.measure.rounds import Rounds
from zoo.results import Summary
from zoo.rows import Count, NotNegative, Positive, Row, Some, Text
from zoo.wording import digits


@dataclass(frozen=True, kw_only=True)
class TimedArtifact(Row):
    """What was timed: the runner's own words, and what its contract says."""

    artifact: Text
    model: Text
    backend: Text
    device: Text
    image_size: Count
    num_classes: Count


@dataclass(frozen=True, kw_only=True)
class Setting(Row):
    """How artifacts were called: what is compared has the same.

    `batch_size` are pictures in a call, in the scenario "server" the most that one takes. `image_size` is told where
    several were asked for; `offered_per_second` are the pictures that arrive, in "server"; `idle_ms` is the silence
    before every call; `driver` is what called and read the clock.
    """

    batch_size: Count
    scenario: ScenarioId = "single_stream"
    image_size: Count | None = None
    offered_per_second: Positive | None = None
    idle_ms: NotNegative | None = None
    driver: Driver = "zoo"

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal where two rows may be compared."""
        facts = (self.scenario, self.image_size, self.offered_per_second, self.idle_ms, self.driver)
        return (self.batch_size, *facts)

    @property
    def facts(self) -> dict[str, Any]:
        """The fields of a setting, of a row that has others too."""
        names = ("batch_size", "scenario", "image_size", "offered_per_second", "idle_ms", "driver")
        return {name: getattr(self, name) for name in names}

    @property
    def short(self) -> str:
        """The same in a word or two, where the page has said the rest: “batch 8”, “50.0/s”, “after 100 ms”."""
        if self.offered_per_second:
            return f"{digits(self.offered_per_second)}/s"
        return f"batch {self.batch_size}" if self.idle_ms is None else f"after {self.idle_ms:g} ms"

    @property
    def label(self) -> str:
        """“batch 8”, “offline, batch 32”, “50.0 pictures/s, up to 8 at once”, “batch 1 after 100 ms”."""
        said = f"batch {self.batch_size}"
        if self.scenario == "server" and self.offered_per_second:
            said = f"{digits(self.offered_per_second)} pictures/s, up to {self.batch_size} at once"
        elif self.scenario == "multi_stream":
            said = f"queries of {self.batch_size}"
        elif self.scenario == "offline":
            said = f"offline, {said}"
        if self.idle_ms is not None:
            said += f" after {self.idle_ms:g} ms"
        return f"{said}, LoadGen" if self.driver == "loadgen" else said


@dataclass(frozen=True, kw_only=True)
class Turn(Setting):
    """Artifacts called alike, in turn: every round, with all of its samples."""

    rounds: Rounds


@dataclass(frozen=True, kw_only=True)
class PartTimes(Row):
    """The parts of calls on a GPU, each waited for, in a pass of their own; `end_to_end` are the same calls whole."""

    host_to_device: Summary
    compute: Summary
    device_to_host: Summary
    end_to_end: Summary


@dataclass(frozen=True, kw_only=True)
class LatencyRow(Setting):
    """One artifact called one way: milliseconds per batch (per picture in "server"), and pictures per second.

    `round_p50_ms` are the medians of the rounds, which show drift; `max_difference` is what two calls on the same
    batch differed by, as a share of the largest logit; `mean_batch` is the mean of what a server's calls took at once;
    `parts` are those of a call, where a runner on a GPU tells them.
    """

    artifact: Text
    latency: Summary
    pictures_per_second: Positive
    round_p50_ms: Annotated[tuple[NotNegative, ...], Some()]
    max_difference: NotNegative
    mean_batch: Positive | None = None
    parts: PartTimes | None = None

    @property
    def keeps_up(self) -> bool:
        """Whether a server answered as many pictures as arrived, but for 5 % that the end of a visit may cut off."""
        return self.offered_per_second is None or self.pictures_per_second >= 0.95 * self.offered_per_second


@dataclass(frozen=True, kw_only=True)
class Comparison(Setting):
    """How many times as fast an artifact is as the first one (`baseline`), called the same way.

    `speedup` is of their medians; `ratio` has the time as a share of the baseline's, with its interval; files of older
    versions have none. `separated` says that they differ for certain: by the verdict, in older files by the rounds.
    """

    artifact: Text
    baseline: Text
    speedup: Positive
    separated: bool
    ratio: Ratio | None = None


@dataclass(frozen=True, kw_only=True)
class LatencyData(Row):
    """The data of a result of `zoo bench latency`: artifacts timed in turn in one call.

    `turns` hold the rounds with every sample; files of older versions have none. `quiet` is None where nobody looked.
    """

    written_too = ("quiet",)

    artifacts: Annotated[tuple[TimedArtifact, ...], Some()]
    rows: Annotated[tuple[LatencyRow, ...], Some()]
    comparisons: tuple[Comparison, ...]
    picture: PictureTimes
    gpu: Mapping[str, Any] | None
    gpu_reason: str
    turns: tuple[Turn, ...] = ()

    @property
    def quiet(self) -> bool | None:
        """Whether the machine left every turn enough rounds undisturbed."""
        return all(turn.rounds.quiet for turn in self.turns) if self.turns else None

    def rows_of(self, artifact: str) -> list[LatencyRow]:
        """One artifact's rows: by scenario, smallest batch, rate and silence first."""
        own = (row for row in self.rows if row.artifact == artifact)
        return sorted(
            own, key=lambda row: (row.scenario, row.batch_size, row.offered_per_second or 0, row.idle_ms or 0)
        )


def compare_rows(rows: Sequence[LatencyRow], turns: Sequence[Turn] = ()) -> tuple[Comparison, ...]:
    """Compare every artifact with the first that was called the same way, with an interval where there are rounds."""
    rounds = {turn.key: turn.rounds for turn in turns}
    comparisons = []
    for row in rows:
        base = next(other for other in rows if other.key == row.key)
        if base is row:
            continue
        ratio, measured = None, rounds.get(row.key)
        if measured:
            ratio = paired_ratio(measured.medians_ms(row.artifact), measured.medians_ms(base.artifact))
        comparisons.append(
            Comparison(
                **row.facts,
                artifact=row.artifact,
                baseline=base.artifact,
                speedup=base.latency.p50_ms / row.latency.p50_ms,
                separated=ratio.verdict in ("faster", "slower") if ratio else _are_separated(base, row),
                ratio=ratio,
            )
        )
    return tuple(comparisons)


def _are_separated(base: LatencyRow, row: LatencyRow) -> bool:
    fast, slow = sorted((base.round_p50_ms, row.round_p50_ms), key=min)
    return max(fast) < min(slow)
