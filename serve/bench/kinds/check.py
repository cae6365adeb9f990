"""Owns results of the harness's check of itself; `serve.bench.measure.self_check` checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from serve.bench.kind import Kind, Measured
from serve.bench.measure.check_run import CheckData
from serve.bench.measure.self_check import Claim
from zoo.page.figures import Figures, to_page
from zoo.page.markup import Markup, tag
from zoo.wording import joined, percent

MeasuredCheck = Measured[CheckData]


def section(run: MeasuredCheck) -> Markup:
    """Every claim and what was found."""
    return tag("section", tag("h3", f"The harness checks itself: {run.result.name}"), *to_page(figures(run)))


def figures(run: MeasuredCheck) -> list[Figures]:
    """A line a claim."""
    rows = [(claim.name, claim.says, claim.found, _limit(claim), _verdict(claim)) for claim in run.data.every_claim()]
    heads = ("check", "claim", "found", "allowed", "")
    return [Figures(heads=heads, rows=rows, caption="What the harness claims of itself", words=(0, 1, 2, 3, 4))]


def _limit(claim: Claim) -> str:
    return f"{'at least' if claim.at_least else 'at most'} {percent(claim.limit)}"


def _verdict(claim: Claim) -> str:
    return ("holds" if claim.passed else "fails") + ("" if claim.quiet else ", machine not quiet")


def headlines(runs: Sequence[MeasuredCheck]) -> Iterator[str]:
    """How many claims hold, and which do not."""
    for run in runs:
        claims = run.data.every_claim()
        failing = [claim.name for claim in claims if not claim.passed]
        but = f"; not: {joined(failing)}" if failing else ""
        left = sum(max(run.data.runs - len(one.verdicts), 0) for one in run.data.repeated)
        more = f" {left} runs are still to be made: the same command goes on." if left else ""
        yield f"{len(claims) - len(failing)} of {len(claims)} claims of the harness hold here{but}.{more}"


def warnings(run: MeasuredCheck) -> Iterator[str]:
    """Which checks were made on a busy machine."""
    busy = [claim.name for claim in run.data.every_claim() if not claim.quiet]
    if busy:
        yield f"The machine was not quiet during the harness's checks of {joined(busy)}."


KIND = Kind(
    name="check",
    place=95,
    read=CheckData.from_dict,
    section=section,
    headlines=headlines,
    tables=figures,
    warnings=warnings,
)
