"""Owns every stage of a network by itself in an engine, as both operators: built, checked, and timed in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from serve.bench.measure.engines import (
    Bench,
    Prepared,
    check_answers,
    forget_compiled,
    open_prepared,
    prepare_artifact,
    reference_answers,
)
from serve.bench.measure.forms import build_form, contract_of, picture_size
from serve.bench.measure.pictures import random_pictures
from serve.bench.measure.places import OPERATORS, StagePlace, form_of, places
from serve.bench.measure.stages import FRAME, StageRow, stage_row
from serve.bench.stage_options import SeChoice
from zoo.measure.packed import pack
from zoo.measure.rounds import Rounds, Visit, measure_rounds
from zoo.measure.timing import Call, Schedule
from zoo.model.spec import Operator, Stage, Variant
from zoo.wording import OPERATOR_NAMES

KEPT_SAMPLES = 100


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What came of timing forms: a track for each and one for `FRAME`; how far each was from PyTorch's answers."""

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
    """Time what was prepared in turn, each after a comparison with PyTorch."""
    forget_compiled(bench)
    pictures = random_pictures(bench.batch_size, picture_size(place))
    calls: dict[str, Call] = {}
    errors: dict[str, float] = {}
    engine, threads = "", None
    with ExitStack() as stack:
        for name, prepared in forms.items():
            reference = reference_answers(prepared.network, prepared.contract, pictures)
            runner = stack.enter_context(open_prepared(prepared, bench))
            what = f"Stage {place.index} as {OPERATOR_NAMES.get(name, f'its {FRAME}')}"
            errors[name] = check_answers(runner, reference, pictures, precision=bench.precision, name=what)
            calls[name] = partial(runner.infer, pictures)
            engine, threads = runner.backend, runner.threads
        return Timed(
            rounds=thinned(measure_rounds(calls, schedule), FRAME), errors=errors, engine=engine, threads=threads
        )


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
