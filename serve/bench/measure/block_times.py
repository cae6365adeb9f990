"""Owns parts of a space's networks timed one by one in an engine; it adds nothing up.

A part is timed as `zoo bench stages` times a stage by itself: exported, compared with PyTorch, visited in turn with its
frame, which is everything around it. What it takes is the difference of the two, round by round.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from serve.bench.measure.engines import Bench, open_prepared, prepare_artifact
from serve.bench.measure.isolated import Open, Timed, time_prepared
from serve.bench.measure.latency import Time
from serve.bench.measure.part_forms import form_of_block, frame_key, frame_of_block
from serve.bench.measure.stages import FRAME
from serve.bench.measure.timing import Schedule
from zoo.intervals import median_interval
from zoo.model.blocks import Block, TimedBlock
from zoo.model.spec import Variant

# Parts that take the same map and are visited in turn with one frame. Where a run is stopped, no more are lost.
AT_ONCE = 4


@dataclass(frozen=True, kw_only=True)
class TimedGroup:
    """Parts with the same frame: their rows, and what these were made of."""

    rows: tuple[TimedBlock, ...]
    timed: Timed


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
    prepared = {
        name: prepare_artifact(form.network, form.contract, bench, f"part-{number}")
        for number, (name, form) in enumerate((forms | {FRAME: frame_of_block(variant, blocks[0])}).items())
    }
    timed = time_prepared(prepared, bench, schedule, open_form=open_form, when=when)
    frame = timed.rounds.medians_ms(FRAME)
    rows = []
    for block in blocks:
        own = timed.rounds.medians_ms(str(block))
        middle, low, high = median_interval([one - off for one, off in zip(own, frame, strict=True)])
        # Noise may make a part that takes next to nothing faster than nothing.
        rows.append(
            TimedBlock(block=block, ms=max(middle, 0.0), low_ms=max(low, 0.0), high_ms=max(high, 0.0), n=len(own))
        )
    return TimedGroup(rows=tuple(rows), timed=timed)
