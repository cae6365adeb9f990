"""Owns what `zoo bench stages`, `fusion` and `latency-table` can be told, with ranges and defaults; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from export.precision.rows import PrecisionId
from serve.bench.engine_rows import EngineId
from serve.bench.options import Folder, Rounds, Threads, WarmupMs
from zoo.model.spec import ImageSize
from zoo.options import RESULTS, Arg, DeviceChoice, Opt, Seed
from zoo.rows import Count, CountOrNone, Positive, Row, Within

# Which forms have squeeze-and-excitation: as in the paper MBConv only, both, or none.
SeChoice = Literal["paper", "both", "none"]
# How a stage is measured: by itself, by layers in the whole network, by exchanging it in the whole network.
Method = Literal["isolated", "in-place", "exchange"]
METHODS: tuple[Method, ...] = ("isolated", "in-place", "exchange")

Engines = Annotated[
    tuple[EngineId, ...],
    Opt("Engine; repeatable, or several with commas.  [default: the best at hand]", flags=("--on",)),
]


@dataclass(frozen=True, kw_only=True)
class StagesOptions(Row):
    """What `zoo bench stages` can be told."""

    model: Annotated[str, Arg("MODEL")]
    image_size: Annotated[
        Annotated[int, Within(8, 4096)] | None, Opt("Side of the pictures, px.  [default: the model's]")
    ] = None
    batch_size: Annotated[Count, Opt("Pictures at once.")] = 1
    engines: Engines = ()
    precisions: Annotated[tuple[PrecisionId, ...], Opt("Repeatable.  [default: fp32]", flags=("--precision",))] = ()
    se: Annotated[
        tuple[SeChoice, ...],
        Opt("Which forms have squeeze-and-excitation; repeatable.  [default: paper: MBConv alone]", flags=("--se",)),
    ] = ()
    kernel_size: Annotated[
        Annotated[int, Within(choices=(3, 5))] | None, Opt("Of both forms.  [default: each stage's own]")
    ] = None
    by: Annotated[
        tuple[Method, ...],
        Opt("What to measure; isolated stages always are. Repeatable.  [default: all three]", flags=("--by",)),
    ] = ()
    map_stages: Annotated[
        tuple[Count, ...],
        Opt("Make a crossover map around this stage; repeatable. Takes minutes.", flags=("--map",), metavar="STAGE"),
    ] = ()
    duration_s: Annotated[Positive, Opt("Of each form of each stage, in all rounds together.")] = 1.0
    warmup_ms: WarmupMs = 200.0
    rounds: Rounds = 10
    device: DeviceChoice = "auto"
    threads: Threads = None
    out: Folder = RESULTS


@dataclass(frozen=True, kw_only=True)
class FusionOptions(Row):
    """What `zoo bench fusion` can be told."""

    image_size: Annotated[
        Annotated[int, Within(32, 4096)], Opt("Side of the pictures, px; the paper does not say its own.")
    ] = 380
    batch_size: Annotated[Count, Opt("Pictures at once in inference.")] = 1
    train_batch_size: Annotated[Count, Opt("Pictures of a training step.")] = 2
    engines: Engines = ()
    precision: Annotated[PrecisionId, Opt("Of inference.")] = "fp32"
    inference: Annotated[bool, Opt("Time training steps alone.", flags=("--no-inference",))] = True
    training: Annotated[bool, Opt("Time inference alone.", flags=("--no-training",))] = True
    duration_s: Annotated[Positive, Opt("Of each network, in all rounds together.")] = 5.0
    warmup_ms: WarmupMs = 200.0
    rounds: Rounds = 10
    device: DeviceChoice = "auto"
    threads: Threads = None
    out: Folder = RESULTS


@dataclass(frozen=True, kw_only=True)
class LatencyTableOptions(Row):
    """What `zoo bench latency-table` can be told."""

    space: Annotated[str, Opt("A space of networks: its name, or a TOML file.", metavar="SPACE")] = "paper"
    image_size: Annotated[ImageSize | None, Opt("Side of the pictures, px.  [default: the space's eval_size]")] = None
    batch_size: Annotated[Count, Opt("Pictures at once.")] = 1
    engine: Annotated[EngineId | None, Opt("Engine.  [default: the best at hand]", flags=("--on",))] = None
    precision: Annotated[PrecisionId, Opt("Of every part.")] = "fp32"
    networks: Annotated[
        CountOrNone,
        Opt("Whole networks, drawn from the space, that the sums are held against; published tables come on top."),
    ] = 10
    seed: Annotated[Seed, Opt("Decides which networks are drawn.")] = 0
    duration_s: Annotated[Positive, Opt("Of each part and each network, in all rounds together.")] = 0.5
    warmup_ms: WarmupMs = 50.0
    rounds: Rounds = 10
    again: Annotated[bool, Opt("Begin anew instead of going on with the result that is there.")] = False
    device: DeviceChoice = "auto"
    threads: Threads = None
    out: Folder = RESULTS
