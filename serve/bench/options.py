"""Owns what `zoo bench latency` and `report` can be told, with ranges and defaults; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from export.backends import BackendId
from zoo.options import RESULTS, Arg, DeviceChoice, Opt
from zoo.rows import Count, NotNegative, Positive, Row, Within

# Options that commands share.
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
class ReportOptions(Row):
    """What `zoo bench report` can be told."""

    results: Annotated[tuple[Path, ...], Arg("[FILE|FOLDER]...")] = ()
    out: Annotated[Path, Opt("The page; its figures are written beside it as .json.", flags=("-o", "--out"))] = (
        RESULTS / "report.html"
    )
