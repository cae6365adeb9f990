"""Owns every stage of a network by itself in an engine, as both operators: built, checked, and timed in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from export.runners.runner import Runner
from serve.bench.measure.engines import (
    Bench,
    Prepared,
    check_answers,
    forget_compiled,
    open_prepared,
    prepare_artifact,
    reference_answers,
)
from serve.bench.measure.forms import build_form, contract_of
from serve.bench.measure.latency import Time
from serve.bench.measure.packed import pack
from serve.bench.measure.pictures import random_pictures
from serve.bench.measure.places import OPERATORS, StagePlace, form_of, places
from serve.bench.measure.rounds import Rounds, Visit, measure_rounds
from serve.bench.measure.stages import FRAME, StageRow, stage_row
from serve.bench.measure.timing import Call, Schedule
from serve.bench.stage_options import SeChoice
from zoo.model.spec import Operator, Stage, Variant
from zoo.wording import OPERATOR_NAMES

KEPT_SAMPLES = 100
Open = Callable[[Prepared, Bench], Runner]


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What came of timing forms in turn: a track for each; how far each was from PyTorch's answers."""

    rounds: Rounds
    errors: Mapping[str, float]
    engine: str
    threads: int | None


def measure_stages(
    variant: Variant,
    bench: Bench,
    schedule: Schedule,
    *,
    image_size: int,
    se: SeChoice = "paper",
    kernel_size: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[StageRow]:
    """Time every stage of `variant` in both forms, in interleaved rounds.

    Raises:
        VerdictError: a form whose answers are not PyTorch's; it is not timed.
        ZooError: what the exporter, the builder or the runner refuse.
    """
    for place in places(variant, image_size):
        forms = {
            operator: form_of(variant, place.stage, operator, se=se, kernel_size=kernel_size) for operator in OPERATORS
        }
        timed = time_forms(place, prepare_forms(variant, place, forms, bench), bench, schedule)
        row = stage_row(
            variant,
            place,
            timed.rounds,
            batch_size=bench.batch_size,
            precision=bench.precision,
            engine=timed.engine,
            threads=timed.threads,
            se=se,
            kernel_size=kernel_size,
            errors=timed.errors,
        )
        say(f"stage {row.index}: {row.verdict}")
        yield row


def prepare_forms(
    variant: Variant, place: StagePlace, forms: Mapping[Operator, Stage], bench: Bench
) -> dict[str, Prepared]:
    """Make what the engine opens of stages that take the same map, and of the frame around them."""
    everything: list[tuple[str, Stage | None]] = [*forms.items(), (FRAME, None)]
    prepared = {}
    for name, stage in everything:
        network = build_form(variant, place, stage)
        prepared[name] = prepare_artifact(network, contract_of(network, place), bench, f"stage-{place.index}-{name}")
    return prepared


def time_forms(place: StagePlace, forms: Mapping[str, Prepared], bench: Bench, schedule: Schedule) -> Timed:
    """Time a stage's forms in turn, each after a comparison with PyTorch."""
    words = {name: f"Stage {place.index} as {OPERATOR_NAMES.get(name, f'its {FRAME}')}" for name in forms}
    return time_prepared(forms, bench, schedule, words=words)


def time_prepared(
    prepared: Mapping[str, Prepared],
    bench: Bench,
    schedule: Schedule,
    *,
    words: Mapping[str, str] | None = None,
    open_form: Open = open_prepared,
    when: Time | None = None,
) -> Timed:
    """Time what was prepared in turn, each on pictures of its own size, after a comparison with PyTorch.

    Args:
        prepared: by name.
        bench: where.
        schedule: how long.
        words: what an error calls each; their names where None.
        open_form: opens what was prepared; tests put a fake here.
        when: the clock; tests put a simulated one here.

    Raises:
        VerdictError: what does not answer as PyTorch does; nothing is timed then.
    """
    when, words = when or Time(), words or {}
    forget_compiled(bench)
    calls: dict[str, Call] = {}
    errors: dict[str, float] = {}
    engine, threads = "", None
    with ExitStack() as stack:
        for name, one in prepared.items():
            preprocessing = one.contract.preprocessing
            pictures = random_pictures(bench.batch_size, preprocessing.image_size, preprocessing.channels)
            reference = reference_answers(one.network, one.contract, pictures)
            runner = stack.enter_context(open_form(one, bench))
            what = words.get(name, name)
            errors[name] = check_answers(runner, reference, pictures, precision=bench.precision, name=what)
            calls[name] = partial(runner.infer, pictures)
            engine, threads = runner.backend, runner.threads
        rounds = measure_rounds(calls, schedule, clock=when.clock, watch=when.watch)
    return Timed(rounds=thinned(rounds, FRAME), errors=errors, engine=engine, threads=threads)


def thinned(rounds: Rounds, name: str) -> Rounds:
    """The rounds with at most `KEPT_SAMPLES` samples of one track's visits, evenly taken; medians are those of all.

    A frame takes microseconds: every sample of it would be most of a result's file, and nobody asks for its tail.
    """
    tracks = []
    for track in rounds.tracks:
        visits = tuple(map(_thin, track.visits)) if track.name == name else track.visits
        tracks.append(replace(track, visits=visits))
    return replace(rounds, tracks=tuple(tracks))


def _thin(visit: Visit) -> Visit:
    kept = visit.ms[:: -(-visit.n // KEPT_SAMPLES)]
    return replace(visit, packed=pack(kept), n=len(kept))
