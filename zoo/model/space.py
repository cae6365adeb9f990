"""Owns what a search chooses from: a space of networks as a row, its candidates, and their networks; it trains none.

The space is the paper's (V2 §3.3): factorised by stages as in MnasNet, channels of a backbone, no pooling and no skip
operations. The spaces that come with the project are in `zoo/model/spaces.py`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Annotated, Literal, TypeVar

import numpy as np

from zoo.errors import RowError, ZooError
from zoo.model.blocks import Block, blocks_of_stage, head_block, stem_block
from zoo.model.counts import output_size
from zoo.model.spec import Activation, ChannelCount, DropProb, ImageSize, Preprocessing, Stage, Variant
from zoo.results import row_sha256
from zoo.rows import Matching, Row, Share, Some, Text, Within

T = TypeVar("T")
N = TypeVar("N", int, float)

Exponent = Annotated[float, Within(-4, 0)]
Searched = Literal["mbconv", "fused_mbconv"]
LETTERS: dict[str, str] = {"mbconv": "m", "fused_mbconv": "f"}
GONE = "0"  # a stage that has vanished, in a candidate's code


@dataclass(frozen=True, kw_only=True)
class StageSpace(Row):
    """What one stage may be. Channels and stride are the backbone's; everything else is chosen from a list.

    0 among `num_layers` lets the stage vanish. `se_ratios` are an MBConv's, `fused_se_ratios` a Fused-MBConv's, which
    has none in the paper's Table 4.
    """

    out_channels: ChannelCount
    stride: Annotated[int, Within(choices=(1, 2))]
    num_layers: Annotated[tuple[Annotated[int, Within(0, 256)], ...], Some()]
    operators: Annotated[tuple[Searched, ...], Some()] = ("mbconv", "fused_mbconv")
    kernel_sizes: Annotated[tuple[Annotated[int, Within(choices=(1, 3, 5, 7))], ...], Some()] = (3, 5)
    expand_ratios: Annotated[tuple[Annotated[int, Within(1, 12)], ...], Some()] = (1, 4, 6)
    se_ratios: Annotated[tuple[Share, ...], Some()] = (0.25,)
    fused_se_ratios: Annotated[tuple[Share, ...], Some()] = (0.0,)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_layers", "operators", "kernel_sizes", "expand_ratios", "se_ratios", "fused_se_ratios"):
            chosen = getattr(self, name)
            if len(set(chosen)) < len(chosen):
                raise RowError(
                    f"{name} has a choice twice: {', '.join(map(str, chosen))}.", "It would be drawn twice as often."
                )

    @property
    def may_vanish(self) -> bool:
        """Whether a network may be without this stage."""
        return 0 in self.num_layers

    def squeezes(self, operator: Searched) -> tuple[float, ...]:
        """The squeeze-and-excitation ratios of one of the operators."""
        return self.se_ratios if operator == "mbconv" else self.fused_se_ratios

    def choices(self) -> Iterator[Stage | None]:
        """Everything the stage may be; None where it vanishes."""
        if self.may_vanish:
            yield None
        layers = [count for count in self.num_layers if count]
        for operator, kernel_size, ratio, count in product(
            self.operators, self.kernel_sizes, self.expand_ratios, layers
        ):
            for se_ratio in self.squeezes(operator):
                yield self.stage(operator, kernel_size, ratio, count, se_ratio)

    def stage(
        self, operator: Searched, kernel_size: int, expand_ratio: int, num_layers: int, se_ratio: float
    ) -> Stage | None:
        """The stage of these choices; None of no layers."""
        if not num_layers:
            return None
        return Stage(
            operator=operator,
            kernel_size=kernel_size,
            stride=self.stride,
            expand_ratio=expand_ratio,
            out_channels=self.out_channels,
            num_layers=num_layers,
            se_ratio=se_ratio,
        )

    def draw(self, rng: np.random.Generator) -> Stage | None:
        """Draw every choice by itself, each from its list with equal chances."""
        operator = _one_of(rng, self.operators)
        return self.stage(
            operator,
            _one_of(rng, self.kernel_sizes),
            _one_of(rng, self.expand_ratios),
            _one_of(rng, self.num_layers),
            _one_of(rng, self.squeezes(operator)),
        )

    def nearest(self, stage: Stage | None) -> Stage | None:
        """The choice that is nearest to a stage of another table, each of its numbers by itself.

        Raises:
            ZooError: its operator is not among the choices, or the stage is missing and may not vanish.
        """
        if stage is None:
            if not self.may_vanish:
                raise ZooError("A stage is missing that may not vanish.", "Add 0 to its num_layers.")
            return None
        if stage.operator not in self.operators:
            raise ZooError(f"A stage of {stage.operator} is not in the space.", f"It has {', '.join(self.operators)}.")
        operator: Searched = "mbconv" if stage.operator == "mbconv" else "fused_mbconv"
        return self.stage(
            operator,
            _nearest(stage.kernel_size, self.kernel_sizes),
            _nearest(stage.expand_ratio, self.expand_ratios),
            _nearest(stage.num_layers, [count for count in self.num_layers if count]),
            _nearest(stage.se_ratio, self.squeezes(operator)),
        )


@dataclass(frozen=True, kw_only=True)
class Candidate(Row):
    """One network of a space: what each of its stages is, None where it has vanished."""

    stages: tuple[Stage | None, ...]

    @property
    def code(self) -> str:
        """One word for each stage: `f3e4x2` is Fused-MBConv 3×3, expansion 4, two layers; `s25` a squeeze of 25 %.

        It tells every candidate of a space from the others, and two spaces' candidates may share one.
        """
        return "-".join(map(_code, self.stages))


def _code(stage: Stage | None) -> str:
    if stage is None:
        return GONE
    squeeze = f"s{100 * stage.se_ratio:g}".replace(".", "_") if stage.se_ratio else ""
    return f"{LETTERS[stage.operator]}{stage.kernel_size}e{stage.expand_ratio}x{stage.num_layers}{squeeze}"


@dataclass(frozen=True, kw_only=True)
class Reward(Row):
    """How accuracy, training step time, parameters and latency make one figure: A · S^w · P^v, here with latency too.

    The exponents w and v are the paper's (V2 §3.3). Latency has none there; here it counts, where a search is given a
    table of latencies, as MnasNet counts it (Tan et al. 2019, §3). 0 leaves a figure out.
    """

    step_time: Exponent = -0.07
    params: Exponent = -0.05
    latency: Exponent = -0.07


@dataclass(frozen=True, kw_only=True)
class Space(Row):
    """The networks that a search chooses from, and the reward it looks for among them.

    `image_size` is that of the short training and of the step times, pixels a side. `train_size` and `eval_size` are
    what the network that is found has in its row, and so are `dropout` and `stochastic_depth_prob`.
    """

    id: Annotated[str, Matching(r"[\w-]+", "letters, digits, - and _")]
    stem_channels: ChannelCount
    stages: Annotated[tuple[StageSpace, ...], Some()]
    head_channels: Annotated[int, Within(1, 65536)]
    image_size: ImageSize
    train_size: ImageSize
    eval_size: ImageSize
    activation: Activation = "silu"
    dropout: DropProb = 0.2
    stochastic_depth_prob: DropProb = 0.2
    reward: Reward = Reward()
    source: Text = "a file of the user"

    def __post_init__(self) -> None:
        super().__post_init__()
        if all(stage.num_layers == (0,) for stage in self.stages):
            raise RowError("The space has nothing in it: every stage has 0 layers.", "Give num_layers other choices.")
        if all(stage.may_vanish for stage in self.stages):
            raise RowError(
                "Every stage may vanish, and so a network of no stage is in the space.",
                "Take 0 out of num_layers of one stage.",
            )

    @property
    def sha256(self) -> str:
        """What tells the networks of this space from another's, whatever both are called and look for."""
        return row_sha256(replace(self, id="space", source="-", reward=Reward()))

    @property
    def size(self) -> int:
        """How many different networks it has."""
        return math.prod(sum(1 for _ in stage.choices()) for stage in self.stages)

    def candidate(self, stages: Iterable[Stage | None]) -> Candidate:
        """The candidate of these stages.

        Raises:
            ZooError: it is not in the space.
        """
        found = Candidate(stages=tuple(stages))
        if not self.holds(found):
            raise ZooError(f"{found.code} is not in the space {self.id}.", "It may be a candidate of another one.")
        return found

    def holds(self, candidate: Candidate) -> bool:
        """Whether a candidate is in the space."""
        return len(candidate.stages) == len(self.stages) and all(
            stage in set(choices.choices()) for choices, stage in zip(self.stages, candidate.stages, strict=True)
        )

    def draw(self, rng: np.random.Generator) -> Candidate:
        """Draw a network: every choice of every stage by itself, with equal chances."""
        return Candidate(stages=tuple(stage.draw(rng) for stage in self.stages))

    def candidates(self) -> Iterator[Candidate]:
        """All of them, in a fixed order; for spaces as small as a test's."""
        for stages in product(*(tuple(stage.choices()) for stage in self.stages)):
            yield Candidate(stages=stages)

    def variant(self, candidate: Candidate, id: str | None = None) -> Variant:
        """The row of a candidate. Its name is the candidate's code; its id, unless given, is the space's and a hash.

        Raises:
            ZooError: the candidate is not in the space.
        """
        if not self.holds(candidate):
            raise ZooError(f"{candidate.code} is not in the space {self.id}.", "It may be a candidate of another one.")
        told = f"{self.sha256}{candidate.code}"
        return Variant(
            id=id or f"{self.id}-{hashlib.sha256(told.encode()).hexdigest()[:8]}",
            name=candidate.code,
            family="search",
            stem_channels=self.stem_channels,
            stages=tuple(stage for stage in candidate.stages if stage is not None),
            head_channels=self.head_channels,
            activation=self.activation,
            dropout=self.dropout,
            stochastic_depth_prob=self.stochastic_depth_prob,
            train_size=self.train_size,
            eval_size=self.eval_size,
            max_size=max(480, self.eval_size, self.train_size),
            preprocessing=Preprocessing(image_size=self.eval_size),
            source=f"`zoo search`, space {self.id} ({self.sha256[:8]})",
        )

    def candidate_of(self, variant: Variant) -> Candidate:
        """A published stage table as a candidate: stage by stage the nearest choice, channels of this space.

        Stages that the space has not are cut off at the end, missing ones vanish. S's table has six stages, so that the
        seventh of a space of EfficientNet's is gone.

        Raises:
            ZooError: its operators are not in the space, or it lacks a stage that may not vanish.
        """
        own = (*variant.stages[: len(self.stages)], *(None,) * (len(self.stages) - len(variant.stages)))
        try:
            return self.candidate(choices.nearest(stage) for choices, stage in zip(self.stages, own, strict=True))
        except ZooError as error:
            raise ZooError(f"{variant.id} is not in the space {self.id}: {error.problem}", error.hint) from error

    def blocks(self, image_size: int | None = None, planes: int = 3) -> tuple[Block, ...]:
        """Every distinct part that a network of the space can have at `image_size` (default: the space's), in order.

        A block's input depends on which stages before it have vanished: all cases are among them.

        Args:
            image_size: pixels a side.
            planes: of a picture.
        """
        size = image_size or self.image_size
        found = {stem_block(planes, self.stem_channels, size): None}
        inputs = {(self.stem_channels, output_size(size, 2)): None}
        for choices in self.stages:
            after = dict(inputs) if choices.may_vanish else {}
            for (channels, side), stage in product(inputs, choices.choices()):
                if stage is not None:
                    found |= dict.fromkeys(blocks_of_stage(stage, channels, side))
                    after[stage.out_channels, output_size(side, stage.stride)] = None
            inputs = after
        heads = (head_block(channels, self.head_channels, side) for channels, side in inputs)
        return (*found, *heads)


def _one_of(rng: np.random.Generator, choices: tuple[T, ...]) -> T:
    return choices[int(rng.integers(len(choices)))]


def _nearest(value: float, choices: Iterable[N]) -> N:
    """The nearest of a few numbers, of two at the same distance the smaller one."""
    return min(choices, key=lambda choice: (abs(choice - value), choice))
