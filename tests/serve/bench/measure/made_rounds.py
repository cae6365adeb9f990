"""Rounds with the medians that a test wants, as `measure_rounds` would have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.serve.bench.measure.simulated import BUSY, QUIET
from zoo.measure.packed import pack
from zoo.measure.rounds import Rounds, Track, Visit, WarmUp


def rounds_of(medians_ms: Mapping[str, Sequence[float]], *, robbed: bool = False) -> Rounds:
    """A visit a median; with `robbed` all of them on a busy machine."""
    vitals = BUSY if robbed else QUIET
    tracks = []
    for name, medians in medians_ms.items():
        visits = tuple(
            Visit(
                packed=pack([ms] * 3),
                n=3,
                p50_ms=ms,
                wall_ms=3 * ms or 1e-3,
                vitals=vitals,
                robbed=vitals.robbed_by(1.0),
            )
            for ms in medians
        )
        tracks.append(Track(name=name, warm_up=WarmUp(iterations=2, ms=1.0, settled=True), visits=visits))
    asked = len(next(iter(medians_ms.values())))
    return Rounds(tracks=tuple(tracks), asked=asked, processors=(0,), threads=1)
