"""Owns what `zoo bench latency`, `serve`, `compare` and `report` can be told: ranges, defaults; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from export.backends import BackendId
from export.options import RequireSignature
from zoo.model.spec import ImageSize
from zoo.options import RESULTS, Arg, DeviceChoice, Opt
from zoo.rows import Count, NotNegative, Positive, Row, ThreadCount, Within

# How pictures come to an artifact (MLPerf's names), and what calls it.
ScenarioId = Literal["single_stream", "multi_stream", "offline", "server"]
Driver = Literal["zoo", "loadgen"]

# How long each of two things is timed before a verdict, seconds: `zoo bench check` tries verdicts of this length.
COMPARED_S = 3.0

# Pictures a second that arrive: from one in a hundred seconds (a visit waits for one at least) to one a microsecond,
# more than any runner answers. All arrivals of a visit are drawn before it begins.
Rate = Annotated[float, Within(0.01, 1e6)]

# Options that commands share.
WarmupMs = Annotated[NotNegative, Opt("Untimed calls before the first round.")]
Rounds = Annotated[int, Within(3), Opt("Visits to each thing compared, A B A B…")]
LatencyRounds = Annotated[
    Annotated[int, Within(3)] | None,
    Opt("Visits to each thing compared, A B A B…  [default: one for every 100 ms]"),
]
Threads = Annotated[ThreadCount | None, Opt("Processor threads.  [default: the back end's]")]
Folder = Annotated[Path, Opt("Folder of the results.", flags=("-o", "--out"))]


@dataclass(frozen=True, kw_only=True)
class LatencyOptions(Row):
    """What `zoo bench latency` can be told."""

    artifacts: Annotated[tuple[str, ...], Arg("ARTIFACT...")]
    scenario: Annotated[
        ScenarioId, Opt("MLPerf's: how pictures come. server: at random, latency from the scheduled arrival.")
    ] = "single_stream"
    batch_sizes: Annotated[
        tuple[Count, ...],
        Opt(
            "Repeatable; for server the most pictures at once.  [default: 1 and 8; offline 32, else 8]",
            flags=("--batch-size",),
        ),
    ] = ()
    image_sizes: Annotated[
        tuple[ImageSize, ...],
        Opt(
            "Of checkpoints, px; repeatable. Each is exported in memory.  [default: their own]", flags=("--image-size",)
        ),
    ] = ()
    rates: Annotated[
        tuple[Rate, ...],
        Opt(
            "Pictures a second that arrive, for server; repeatable.  [default: 50, 80, 95 % of the slowest's most]",
            flags=("--rate",),
        ),
    ] = ()
    idle_gap: Annotated[bool, Opt("Also time calls after 10, 100 and 1000 ms of silence.")] = False
    driver: Annotated[Driver, Opt("loadgen: MLPerf's own LoadGen calls and reads the clock.")] = "zoo"
    duration_s: Annotated[Positive, Opt("Of each artifact at each batch size, in all rounds together.")] = COMPARED_S
    warmup_ms: Annotated[NotNegative, Opt("Untimed calls before the first round; on until their time is steady.")] = (
        200.0
    )
    rounds: LatencyRounds = None
    backends: Annotated[
        tuple[BackendId, ...],
        Opt("Time each artifact in this one, if it opens it; repeatable.  [default: auto]", flags=("--backend",)),
    ] = ()
    device: DeviceChoice = "auto"
    threads: Threads = None
    require_signature: RequireSignature = None
    out: Folder = RESULTS


@dataclass(frozen=True, kw_only=True)
class CompareOptions(Row):
    """What `zoo bench compare` can be told."""

    before: Annotated[Path, Arg("BEFORE.json")]
    after: Annotated[Path, Arg("AFTER.json")]
    tolerance: Annotated[Positive, Opt("How much slower is no regression, %.")] = 5.0
    strict: Annotated[bool, Opt("Fail too where the interval does not rule a regression out.")] = False


@dataclass(frozen=True, kw_only=True)
class FrontierOptions(Row):
    """What `zoo bench zoo` can be told."""

    models: Annotated[tuple[str, ...], Arg("[MODEL]...")] = ()
    batch_size: Annotated[Count, Opt("Pictures at once.")] = 1
    duration_s: Annotated[Positive, Opt("Of each network, in all rounds together.")] = 2.0
    warmup_ms: WarmupMs = 200.0
    rounds: LatencyRounds = None
    device: DeviceChoice = "auto"
    threads: Threads = None
    out: Folder = RESULTS


@dataclass(frozen=True, kw_only=True)
class CheckOptions(Row):
    """What `zoo bench check` can be told."""

    model: Annotated[str, Opt("Network, with random weights, that is timed.")] = "lite0"
    runs: Annotated[
        Count, Opt("Runs of each check that is repeated: 20 take minutes; a larger number goes on from them.")
    ] = 20
    duration_s: Annotated[Positive, Opt("Of each of two things compared.")] = COMPARED_S
    threads: Threads = None
    again: Annotated[bool, Opt("Begin anew instead of going on with the result that is there.")] = False
    out: Folder = RESULTS


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Row):
    """What `zoo bench report` can be told."""

    results: Annotated[tuple[Path, ...], Arg("[FILE|FOLDER]...")] = ()
    out: Annotated[
        Path, Opt("The page; its figures are written beside it as .json, .md and .csv.", flags=("-o", "--out"))
    ] = RESULTS / "report.html"


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
