"""Owns every stage of a network by itself in an engine, as both operators: built, checked, and timed in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from serve.bench.measure.engines import (
    Bench,
    Prepared,
    check_answers,
    open_prepared,
    prepare_artifact,
    reference_answers,
)
from serve.bench.measure.forms import build_form, contract_of, picture_size
from serve.bench.measure.pictures import random_pictures
from serve.bench.measure.places import OPERATORS, StagePlace, form_of, places
from serve.bench.measure.rounds import Rounds, measure_rounds
from serve.bench.measure.stages import FRAME, StageRow, stage_row
from serve.bench.measure.timing import Call, Schedule
from serve.bench.stage_options import SeChoice
from zoo.model.spec import Operator, Stage, Variant
from zoo.wording import OPERATOR_NAMES


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What came of timing forms: a track for each and one for `FRAME`; how far each was from PyTorch's answers."""

    rounds: Rounds
    errors: Mapping[str, float]
    engine: str


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
    pictures = random_pictures(bench.batch_size, picture_size(place))
    calls: dict[str, Call] = {}
    errors: dict[str, float] = {}
    engine = ""
    with ExitStack() as stack:
        for name, prepared in forms.items():
            reference = reference_answers(prepared.network, prepared.contract, pictures)
            runner = stack.enter_context(open_prepared(prepared, bench))
            what = f"Stage {place.index} as {OPERATOR_NAMES.get(name, f'its {FRAME}')}"
            errors[name] = check_answers(runner, reference, pictures, precision=bench.precision, name=what)
            calls[name] = partial(runner.infer, pictures)
            engine = runner.backend
        return Timed(rounds=measure_rounds(calls, schedule), errors=errors, engine=engine)
