"""Owns the whole network around a stage: its layers in place by a profiler, and one stage exchanged in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from statistics import median

import numpy as np
from numpy.typing import NDArray

from export.contract import Contract
from export.source import NUM_CLASSES, make_random_network
from serve.bench.measure.engines import (
    Bench,
    Prepared,
    check_answers,
    forget_compiled,
    open_prepared,
    prepare_artifact,
    reference_answers,
)
from serve.bench.measure.layer_names import LayerPlace, place_of
from serve.bench.measure.pictures import random_pictures
from serve.bench.measure.places import swapped
from serve.bench.measure.profilers import WARM_UP_CALLS, Call, open_profiled
from serve.bench.measure.ratio import EVEN_WITHIN, FEWEST_ROUNDS, Ratio, paired_ratio
from serve.bench.measure.stage_rows import Exchange, InPlace, LayerTime
from serve.bench.stage_options import SeChoice
from zoo.measure.rounds import Rounds, measure_rounds
from zoo.measure.timing import Schedule, time_call
from zoo.model.spec import Operator, Variant

# Calls that are taken apart; their medians count.
PROFILED_CALLS = 30
OWN, OTHER = "own", "other"
# What counts as even in a whole network is 2 % of the stage; a stage of less than this share of it has no verdict.
LEAST_WITHIN = 1e-4


def prepare_network(variant: Variant, bench: Bench, *, image_size: int, name: str) -> Prepared:
    """A whole network with random weights, as `zoo export --random-weights` makes it, ready for the engine."""
    preprocessing = variant.preprocessing.at(image_size)
    contract = Contract(
        model=variant.id, classes=tuple(f"class {index}" for index in range(NUM_CLASSES)), preprocessing=preprocessing
    )
    return prepare_artifact(make_random_network(variant, preprocessing), contract, bench, name)


def check_network(prepared: Prepared, bench: Bench, name: str) -> NDArray[np.uint8]:
    """Compare a whole network with PyTorch before it is timed; return the pictures it is timed on.

    Raises:
        VerdictError: as `check_answers`.
    """
    preprocessing = prepared.contract.preprocessing
    pictures = random_pictures(bench.batch_size, preprocessing.image_size, preprocessing.channels)
    reference = reference_answers(prepared.network, prepared.contract, pictures)
    with open_prepared(prepared, bench) as runner:
        check_answers(runner, reference, pictures, precision=bench.precision, name=name)
    return pictures


def measure_in_place(
    prepared: Prepared, bench: Bench, schedule: Schedule, pictures: NDArray[np.uint8], *, calls: int = PROFILED_CALLS
) -> InPlace:
    """Take the calls of a whole network apart, and hold the sum of its layers against a run without a profiler."""
    assert bench.engine.profiler
    with open_prepared(prepared, bench) as runner:
        rounds = measure_rounds({OWN: partial(runner.infer, pictures)}, schedule)
    with open_profiled(prepared, bench) as profiled:
        counted = Schedule(
            warmup_ms=0, min_warmup_iterations=WARM_UP_CALLS, duration_ms=0, min_iterations=calls, rounds=1
        )
        took = time_call(partial(profiled.run, pictures), counted)
        taken = profiled.finish()
    return in_place_of(taken, profiler=bench.engine.profiler, rounds=rounds, profiled_ms=took.median_ms)


def in_place_of(calls: Sequence[Call], *, profiler: str, rounds: Rounds, profiled_ms: float) -> InPlace:
    """Sum the layers of every call by their places, and take the median of the calls.

    Args:
        rounds: the network without a profiler, called `OWN`.
    """
    places: dict[LayerPlace, list[float]] = defaultdict(list)
    nowhere: dict[str, list[float]] = defaultdict(list)
    for call in calls:
        of_call: dict[LayerPlace, float] = defaultdict(float)
        unknown: dict[str, float] = defaultdict(float)
        for layer in call:
            place = place_of(layer.name)
            if place.known:
                of_call[place] += layer.ms
            else:
                unknown[layer.kind or layer.name] += layer.ms
        for key, ms in of_call.items():
            places[key].append(ms)
        for kind, ms in unknown.items():
            nowhere[kind].append(ms)
    return InPlace(
        profiler=profiler,
        calls=len(calls),
        whole_ms=median(rounds.medians_ms(OWN)),
        rounds=rounds,
        profiled_ms=profiled_ms,
        layers=tuple(
            LayerTime(stage=key.stage, block=key.block, operator=key.operator, beside=key.beside, ms=median(of_key))
            for key, of_key in places.items()
        ),
        unattributed_ms={kind: median(of_kind) for kind, of_kind in nowhere.items()},
    )


def stage_samples_ms(calls: Sequence[Call], index: int) -> list[float]:
    """What the layers of a stage took together, call by call."""
    return [sum(layer.ms for layer in call if place_of(layer.name).stage == index) for call in calls]


def measure_exchanges(
    variant: Variant,
    own: Prepared,
    bench: Bench,
    schedule: Schedule,
    pictures: NDArray[np.uint8],
    *,
    stage_ms: Sequence[float],
    in_place: bool,
    se: SeChoice = "paper",
    kernel_size: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Exchange]:
    """Exchange every stage in turn, and time the network beside the one as it is, in interleaved rounds.

    Args:
        own: the network as it is.
        stage_ms: what each stage takes by itself in its own form: 2 % of that is even.
        in_place: compare the layers of the stage in both networks by the profiler too.
    """
    image_size = own.contract.preprocessing.image_size
    for index, stage in enumerate(variant.stages, start=1):
        other_variant = swapped(variant, index, se=se, kernel_size=kernel_size)
        other = prepare_network(other_variant, bench, image_size=image_size, name=f"exchanged-{index}")
        check_network(other, bench, f"{variant.id} with stage {index} exchanged")
        forget_compiled(bench)
        with ExitStack() as stack:
            runners = {
                name: stack.enter_context(open_prepared(one, bench)) for name, one in ((OWN, own), (OTHER, other))
            }
            rounds = measure_rounds({name: partial(one.infer, pictures) for name, one in runners.items()}, schedule)
        profiled = _profile_both(own, other, bench, pictures, index) if in_place else None
        row = exchange_row(index, stage.operator, rounds, stage_ms=stage_ms[index - 1], profiled=profiled)
        say(f"stage {index} exchanged: the network takes {row.other_ms:.3g} ms instead of {row.own_ms:.3g}")
        yield row


def _profile_both(
    own: Prepared, other: Prepared, bench: Bench, pictures: NDArray[np.uint8], index: int
) -> tuple[list[float], list[float]]:
    """What the layers of a stage take in both networks, call by call in turn."""
    with open_profiled(own, bench) as first, open_profiled(other, bench) as second:
        for _ in range(WARM_UP_CALLS + PROFILED_CALLS):
            first.run(pictures)
            second.run(pictures)
        return stage_samples_ms(first.finish(), index), stage_samples_ms(second.finish(), index)


def exchange_row(
    index: int,
    own_operator: Operator,
    rounds: Rounds,
    *,
    stage_ms: float,
    profiled: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Exchange:
    """Put the times of both whole networks, and of the stage's layers in them, beside one another.

    Args:
        rounds: its tracks are `OWN` and `OTHER`.
        profiled: the stage's layers in the network as it is and in the other, call by call, ms.
    """
    own_ms, other_ms = rounds.medians_ms(OWN), rounds.medians_ms(OTHER)
    within = max(EVEN_WITHIN * min(stage_ms / median(own_ms), 1.0), LEAST_WITHIN)
    in_place = _fused_over_mbconv(own_operator, *profiled) if profiled else None
    return Exchange(
        index=index,
        own_operator=own_operator,
        own_ms=median(own_ms),
        other_ms=median(other_ms),
        ratio=_must(_fused_over_mbconv(own_operator, own_ms, other_ms, within=within)),
        rounds=rounds,
        in_place=in_place,
        own_in_place_ms=median(profiled[0]) if profiled else None,
        other_in_place_ms=median(profiled[1]) if profiled else None,
    )


def _fused_over_mbconv(
    own_operator: Operator, own: Sequence[float], other: Sequence[float], *, within: float = EVEN_WITHIN
) -> Ratio | None:
    """The ratio with Fused-MBConv above; None where an engine attributed nothing to the stage."""
    if min(len(own), len(other)) < FEWEST_ROUNDS or min(*own, *other) <= 0:
        return None
    fused, mbconv = (own, other) if own_operator == "fused_mbconv" else (other, own)
    return paired_ratio(fused, mbconv, within=within)


def _must(ratio: Ratio | None) -> Ratio:
    assert ratio  # whole networks take time, in as many rounds as were asked for
    return ratio
