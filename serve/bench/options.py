"""Owns what `zoo bench latency`, `stages`, `serve` and `report` can be told, in ranges; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from export.backends import BackendId
from zoo.options import RESULTS, Arg, DeviceChoice, Opt
from zoo.rows import Count, NotNegative, Positive, Row, Within

# What a stage is timed in; what an artifact is in, its passport says.
StagePrecision = Literal["fp32", "tf32", "fp16", "bf16"]

# Options that `latency` and `stages` share.
WarmupMs = Annotated[NotNegative, Opt("Untimed calls before the first round.")]
Rounds = Annotated[int, Within(3), Opt("Visits to each thing compared, A B A B…")]
Threads = Annotated[Count | None, Opt("Processor threads.  [default: the back end's]")]
Folder = Annotated[Path, Opt("Folder of the results.", flags=("-o", "--out"))]


@dataclass(frozen=True, kw_only=True)
class LatencyOptions(Row):
    """What `zoo bench latency` can be told."""

    artifacts: Annotated[tuple[str, ...], Arg("ARTIFACT...")]
    batch_sizes: Annotated[tuple[Count, ...], Opt("Repeatable.  [default: 1 and 8]", flags=("--batch-size",))] = ()
    duration_s: Annotated[Positive, Opt("Of each artifact at each batch size, in all rounds together.")] = 3.0
    warmup_ms: WarmupMs = 200.0
    rounds: Rounds = 5
    backends: Annotated[
        tuple[BackendId, ...],
        Opt("Time each artifact in this one, if it opens it; repeatable.  [default: auto]", flags=("--backend",)),
    ] = ()
    device: DeviceChoice = "auto"
    threads: Threads = None
    out: Folder = RESULTS


@dataclass(frozen=True, kw_only=True)
class StagesOptions(Row):
    """What `zoo bench stages` can be told."""

    model: Annotated[str, Arg("MODEL")]
    image_size: Annotated[
        Annotated[int, Within(8, 4096)] | None, Opt("Side of the pictures, px.  [default: the model's]")
    ] = None
    batch_size: Annotated[Count, Opt("Pictures at once.")] = 1
    precision: Annotated[StagePrecision, Opt("tf32 needs a GPU.")] = "fp32"
    duration_s: Annotated[Positive, Opt("Of each form of each stage, in all rounds together.")] = 1.0
    warmup_ms: WarmupMs = 200.0
    rounds: Rounds = 5
    device: DeviceChoice = "auto"
    threads: Threads = None
    out: Folder = RESULTS


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Row):
    """What `zoo bench report` can be told."""

    results: Annotated[tuple[Path, ...], Arg("[FILE|FOLDER]...")] = ()
    out: Annotated[Path, Opt("The page; its figures are written beside it as .json.", flags=("-o", "--out"))] = (
        RESULTS / "report.html"
    )


@dataclass(frozen=True, kw_only=True)
class ServeBenchOptions(Row):
    """What `zoo bench serve` can be told."""

    servers: Annotated[tuple[str, ...], Arg("[NAME=]URL...")]
    clients: Annotated[tuple[Count, ...], Opt("Of a closed loop; repeatable.  [default: 1, 8 and 32]")] = ()
    overload: Annotated[
        tuple[Positive, ...], Opt("Times the best rate, in an open loop; repeatable.  [default: 2 and 3]")
    ] = ()
    duration_s: Annotated[Positive, Opt("Of each load.")] = 10.0
    picture: Annotated[Path | None, Opt("Sent with each request.  [default: a photograph, 640 × 427]")] = None
    path: Annotated[str, Opt("Where pictures are posted, if the URL does not say it.")] = "/predict"
    out: Folder = RESULTS
