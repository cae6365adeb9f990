"""Owns the rows that say how a quantized network compares with its float one, block by block; light to import."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.rows import Count, NotNegative, Row, Share, Text


@dataclass(frozen=True, kw_only=True)
class Score(Row):
    """How near logits are to the float graph's: same answers, and the root mean square of the error as a share of the
    root mean square of the logits about their mean.
    """

    agreement: Share
    relative_rms_error: NotNegative


@dataclass(frozen=True, kw_only=True)
class BlockScore(Row):
    """A block, its share of all multiply-adds, and the score of the network with this block alone in 8 bits."""

    block: Text
    macs_share: Share
    alone: Score


@dataclass(frozen=True, kw_only=True)
class Choice(Row):
    """What was found: `all` blocks in 8 bits, every block alone, and the modules `kept` in float.

    `chosen` is the score with these; `kept_macs_share` is what they have of all multiply-adds. `target` is the
    agreement that was asked for, None where the modules were named; `n` pictures were compared.
    """

    written_too = ("met",)

    all: Score
    blocks: tuple[BlockScore, ...]
    kept: tuple[str, ...]
    kept_macs_share: Share
    chosen: Score
    target: Share | None
    n: Count

    @property
    def met(self) -> bool:
        """Whether the network chosen agrees as often as was asked for."""
        return self.target is None or self.chosen.agreement >= self.target


@dataclass(frozen=True, kw_only=True)
class QuantizationCard(Row):
    """How one artifact got its 8 bits: where its pairs are (`layout`, the back end's), on what it was calibrated.

    `method` chose the ranges of activations; `pictures` are `n` of those of that name.
    """

    layout: Text
    method: Text
    pictures: Text
    n: Count
    choice: Choice
