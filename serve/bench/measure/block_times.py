"""Owns parts of a space's networks timed one by one in an engine, and whole networks in turn; it adds nothing up.

A part is timed as `zoo bench stages` times a stage by itself: exported, compared with PyTorch, visited in turn with its
frame, which is everything around it. What it takes is the difference of the two, round by round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
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
from serve.bench.measure.isolated import thinned
from serve.bench.measure.latency import Time
from serve.bench.measure.part_forms import Form, form_of_block, frame_key, frame_of_block
from serve.bench.measure.pictures import random_pictures
from serve.bench.measure.rounds import Rounds, measure_rounds
from serve.bench.measure.stages import FRAME
from serve.bench.measure.timing import Call, Schedule
from zoo.intervals import median_interval
from zoo.model.blocks import Block, TimedBlock
from zoo.model.spec import Variant

# Parts that take the same map and are visited in turn with one frame: what is lost where a run is stopped is few.
AT_ONCE = 4
Open = Callable[[Prepared, Bench], Runner]


@dataclass(frozen=True, kw_only=True)
class TimedGroup:
    """Parts with the same frame: their rows, the rounds they were made of, and how far answers were from PyTorch's."""

    rows: tuple[TimedBlock, ...]
    rounds: Rounds
    errors: Mapping[str, float]
    engine: str
    threads: int | None


def groups_of(blocks: Sequence[Block]) -> Iterator[tuple[Block, ...]]:
    """Parts with the same frame, at most `AT_ONCE` together, the stems first: their frame is the call of nothing."""
    same: dict[tuple[int, int], list[Block]] = {}
    for block in sorted(blocks, key=lambda block: block.operator != "stem"):
        same.setdefault(frame_key(block), []).append(block)
    for together in same.values():
        yield from (tuple(together[start : start + AT_ONCE]) for start in range(0, len(together), AT_ONCE))


def measure_group(
    blocks: Sequence[Block],
    variant: Variant,
    bench: Bench,
    schedule: Schedule,
    *,
    num_classes: int,
    open_form: Open = open_prepared,
    when: Time | None = None,
) -> TimedGroup:
    """Time parts that have one frame, in turn with it.

    Args:
        blocks: as `groups_of` gives them.
        variant: any network of the space, for its activation and its norms.
        bench: where.
        schedule: how long.
        num_classes: of a head's classifier.
        open_form: opens what was prepared; tests put a fake here.
        when: the clock; tests put a simulated one here.

    Raises:
        VerdictError: a part whose answers are not PyTorch's; it is not timed. ZooError: as the exporter, the builder
        and the runner.
    """
    forms = {str(block): form_of_block(variant, block, num_classes) for block in blocks}
    timed = _time(forms | {FRAME: frame_of_block(variant, blocks[0])}, bench, schedule, open_form, when)
    frame = timed.rounds.medians_ms(FRAME)
    rows = []
    for block in blocks:
        own = timed.rounds.medians_ms(str(block))
        middle, low, high = median_interval([one - off for one, off in zip(own, frame, strict=True)])
        # Noise may make a part that takes next to nothing faster than nothing.
        rows.append(
            TimedBlock(block=block, ms=max(middle, 0.0), low_ms=max(low, 0.0), high_ms=max(high, 0.0), n=len(own))
        )
    return TimedGroup(
        rows=tuple(rows), rounds=timed.rounds, errors=timed.errors, engine=timed.engine, threads=timed.threads
    )


@dataclass(frozen=True, kw_only=True)
class _Timed:
    rounds: Rounds
    errors: dict[str, float]
    engine: str
    threads: int | None


def _time(forms: Mapping[str, Form], bench: Bench, schedule: Schedule, open_form: Open, when: Time | None) -> _Timed:
    """Export, check and time forms in turn."""
    prepared = {
        name: prepare_artifact(form.network, form.contract, bench, f"part-{number}")
        for number, (name, form) in enumerate(forms.items())
    }
    return time_prepared(prepared, bench, schedule, open_form=open_form, when=when)


def time_prepared(
    prepared: Mapping[str, Prepared],
    bench: Bench,
    schedule: Schedule,
    *,
    open_form: Open = open_prepared,
    when: Time | None = None,
) -> _Timed:
    """Time what was prepared in turn, each on pictures of its own size, after a comparison with PyTorch."""
    when = when or Time()
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
            errors[name] = check_answers(runner, reference, pictures, precision=bench.precision, name=name)
            calls[name] = partial(runner.infer, pictures)
            engine, threads = runner.backend, runner.threads
        rounds = measure_rounds(calls, schedule, clock=when.clock, watch=when.watch)
    return _Timed(rounds=thinned(rounds, FRAME), errors=errors, engine=engine, threads=threads)
