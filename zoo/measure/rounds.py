"""Owns interleaved rounds: everything compared is visited in turn, A B A B…, and what was disturbed is measured again.

A round is one visit to each call. A visit that lost its processor marks its round as robbed, with the reason; the
round is kept and another one is measured, at most as many again as were asked for. Nothing is left out for its value.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Protocol

from zoo.errors import ZooError
from zoo.measure.packed import Packed, pack, unpack
from zoo.measure.timing import Call, Clock, Samples, Schedule, Timer, time_call
from zoo.measure.vitals import Vitals, Watch, count_threads, usable_processor_numbers
from zoo.results import Summary, percentile, summarize
from zoo.rows import Count, CountOrNone, NotNegative, Positive, Row, Some, Text
from zoo.wording import joined

# Warm-up is over when the medians of two windows in a row differ by no more than this.
STEADY_WITHIN = 0.02
# Windows of warm-up at most; each is half of what was asked for.
MAX_WINDOWS = 20
# Rounds at least, if so many were asked for: of fewer no interval is worth its name.
MIN_ROUNDS = 10
# How long a visit lasts where nobody says how many rounds there shall be, and how many there are then at most: short
# visits follow a machine whose pace drifts, and a hundred rounds narrow an interval as far as rounds can.
VISIT_MS = 100.0
MOST_ROUNDS = 100
# Rounds that were robbed are measured again, until there were so many times as many rounds as asked for.
MAX_ROUNDS_RATIO = 2


Visiting = Callable[[Schedule], Samples]


class Watches(Protocol):
    """What looks at the machine while a visit lasts: `zoo.measure.vitals.Watch`, or a test's fake."""

    def begin(self) -> None:
        """A visit begins."""
        ...

    def end(self) -> Vitals:
        """What happened since `begin`."""
        ...


@dataclass(frozen=True, kw_only=True)
class WarmUp(Row):
    """Untimed calls before the first round: how many, for how long, and whether the time per call had settled."""

    iterations: CountOrNone
    ms: NotNegative
    settled: bool


@dataclass(frozen=True, kw_only=True)
class Visit(Row):
    """One visit of a round to one call: every sample, the wall time of all, and the machine meanwhile."""

    packed: Packed
    n: Count
    p50_ms: NotNegative
    wall_ms: Positive
    vitals: Vitals
    robbed: tuple[Text, ...] = ()

    @property
    def ms(self) -> tuple[float, ...]:
        """Every sample, in the order taken."""
        return unpack(self.packed)


@dataclass(frozen=True, kw_only=True)
class Track(Row):
    """What was measured of one call: its warm-up, and its visit in every round, in the order of the rounds."""

    name: Text
    warm_up: WarmUp
    visits: Annotated[tuple[Visit, ...], Some()]


@dataclass(frozen=True, kw_only=True)
class Rounds(Row):
    """Calls measured in turn. `asked` is the number of undisturbed rounds that were wanted.

    `processors` are the numbers of those the process may use, `threads` those it had when all was measured.
    """

    written_too = ("quiet", "robbed_rounds")

    tracks: Annotated[tuple[Track, ...], Some()]
    asked: Count
    processors: tuple[CountOrNone, ...]
    threads: Count

    @property
    def robbed_rounds(self) -> tuple[int, ...]:
        """The rounds, from 0, in which a visit was robbed."""
        return tuple(
            index
            for index, visits in enumerate(zip(*(track.visits for track in self.tracks), strict=True))
            if any(visit.robbed for visit in visits)
        )

    @property
    def quiet(self) -> bool:
        """Whether as many undisturbed rounds were measured as were needed."""
        return len(self.tracks[0].visits) - len(self.robbed_rounds) >= min(self.asked, MIN_ROUNDS)

    @property
    def telling(self) -> tuple[int, ...]:
        """The rounds that figures are made of: the undisturbed ones, or all where the run never was quiet."""
        rounds, robbed = range(len(self.tracks[0].visits)), set(self.robbed_rounds)
        return tuple(index for index in rounds if index not in robbed or not self.quiet)

    def track(self, name: str) -> Track:
        """One call's track.

        Raises:
            KeyError: there is none.
        """
        for track in self.tracks:
            if track.name == name:
                return track
        raise KeyError(name)

    def samples_ms(self, name: str) -> list[float]:
        """Every sample of one call in the telling rounds, in the order taken."""
        visits = self.track(name).visits
        return [sample for index in self.telling for sample in visits[index].ms]

    def medians_ms(self, name: str) -> tuple[float, ...]:
        """The medians of one call's telling rounds: of two calls those at the same place are of the same round."""
        visits = self.track(name).visits
        return tuple(visits[index].p50_ms for index in self.telling)

    def summary(self, name: str) -> Summary:
        """The telling rounds of one call, summarised together."""
        return summarize(self.samples_ms(name))

    def wall_s(self, name: str) -> float:
        """The wall time of one call's telling rounds, seconds."""
        visits = self.track(name).visits
        return sum(visits[index].wall_ms for index in self.telling) / 1000.0


def disturbance(measured: Iterable[Rounds]) -> str:
    """What a headline has to say where any of several measurements never was quiet; empty where all were."""
    loud = [rounds for rounds in measured if not rounds.quiet]
    robbed = [visit for rounds in loud for track in rounds.tracks for visit in track.visits if visit.robbed]
    if not robbed:
        return ""
    worst = joined(max(robbed, key=lambda visit: visit.vitals.lost_share).robbed)
    count = sum(len(rounds.robbed_rounds) for rounds in loud)
    total = sum(len(rounds.tracks[0].visits) for rounds in loud)
    return (
        f"The machine was not quiet: {count} of {total} rounds were disturbed, at worst a visit {worst}; these figures "
        "are of a busy machine."
    )


def plan_rounds(duration_s: float, *, warmup_ms: float, rounds: int | None = None) -> Schedule:
    """The schedule of a measurement that takes `duration_s` for each call; 3 s → 30 rounds where none are asked for."""
    fitting = min(max(round(duration_s * 1000 / VISIT_MS), MIN_ROUNDS), MOST_ROUNDS)
    return Schedule(warmup_ms=warmup_ms, duration_ms=duration_s * 1000, rounds=rounds or fitting)


def measure_rounds(
    calls: Mapping[str, Call],
    schedule: Schedule,
    *,
    timer: Timer | None = None,
    visits: Mapping[str, Visiting] | None = None,
    clock: Clock = time.perf_counter_ns,
    watch: Watches | None = None,
    on_round: Callable[[int, Sequence[Visit]], None] = lambda index, visits: None,
) -> Rounds:
    """Warm every call up until its time is steady, then visit all in turn, round after round.

    A visit lasts `duration_ms / rounds`, and one call at least. The rounds are over when `rounds` undisturbed ones are
    there, or `MIN_ROUNDS` and both the duration and the iterations of the schedule: slow calls need fewer rounds.

    Args:
        calls: what is compared, by name; the order is that of the visits.
        schedule: how long.
        timer: `time_call` on `clock` where None; `zoo.measure.timing.time_cuda` for work on a GPU.
        visits: how each call is visited where a visit is more than calls in a row, by the same names; the warm-up is
            calls in a row all the same.
        clock: counts nanoseconds and never runs backwards; tests put a simulated one here.
        watch: looks at the machine during each visit.
        on_round: is told the number of each round that was measured, and its visits.

    Raises:
        ZooError: there is nothing to measure.
    """
    if not calls:
        raise ZooError("There is nothing to measure.", "Name at least one call.")
    timer, watch = timer or partial(time_call, clock=clock), watch or Watch()
    warm_ups = {name: warm_up(call, schedule, timer) for name, call in calls.items()}
    visits = visits or {name: partial(timer, call) for name, call in calls.items()}
    made: dict[str, list[Visit]] = {name: [] for name in calls}
    share = schedule.visit(1)
    index = 0
    while not _is_enough(made, schedule):
        for name, of_call in made.items():
            of_call.append(_visit(visits[name], share, watch, of_call))
        on_round(index, [of_call[-1] for of_call in made.values()])
        index += 1
    return Rounds(
        tracks=tuple(Track(name=name, warm_up=warm_ups[name], visits=tuple(of_call)) for name, of_call in made.items()),
        asked=schedule.rounds,
        processors=usable_processor_numbers(),
        threads=count_threads(),
    )


def warm_up(call: Call, schedule: Schedule, timer: Timer) -> WarmUp:
    """Call until the time per call is steady: at least as long and as often as asked, at most `MAX_WINDOWS` windows."""
    window = replace(
        schedule,
        rounds=1,
        warmup_ms=0.0,
        min_warmup_iterations=0,
        duration_ms=schedule.warmup_ms / 2,
        min_iterations=max(1, -(-schedule.min_warmup_iterations // 2)),
    )
    iterations, total_ms, medians = 0, 0.0, list[float]()
    while len(medians) < MAX_WINDOWS and not _is_steady(medians):
        samples = timer(call, window)
        iterations, total_ms = iterations + len(samples.ms), total_ms + samples.wall_ms
        medians.append(samples.median_ms)
    return WarmUp(iterations=iterations, ms=total_ms, settled=_is_steady(medians))


def _is_steady(medians: Sequence[float]) -> bool:
    if len(medians) < 2:
        return False
    before, last = medians[-2:]
    return abs(last - before) <= STEADY_WITHIN * min(last, before)


def _visit(visit: Visiting, share: Schedule, watch: Watches, earlier: Sequence[Visit]) -> Visit:
    watch.begin()
    samples = visit(share)
    vitals = watch.end()
    best = max([vitals.cpu_share, *(visit.vitals.cpu_share for visit in earlier)])
    return Visit(
        packed=pack(samples.ms),
        n=len(samples.ms),
        p50_ms=percentile(sorted(samples.ms), 50),
        wall_ms=samples.wall_ms,
        vitals=vitals,
        robbed=vitals.robbed_by(best),
    )


def _is_enough(visits: Mapping[str, Sequence[Visit]], schedule: Schedule) -> bool:
    """Whether no further round is needed, or allowed."""
    rounds = list(zip(*visits.values(), strict=True))
    quiet = [round_ for round_ in rounds if not any(visit.robbed for visit in round_)]
    if len(quiet) >= schedule.rounds or len(rounds) >= MAX_ROUNDS_RATIO * schedule.rounds:
        return True
    if len(quiet) < min(MIN_ROUNDS, schedule.rounds):
        return False
    return all(
        sum(visit.wall_ms for visit in of_call) >= schedule.duration_ms
        and sum(visit.n for visit in of_call) >= schedule.min_iterations
        for of_call in zip(*quiet, strict=True)
    )
