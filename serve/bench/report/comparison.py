"""Owns two results of one thing beside one another: what became slower, for certain or perhaps; it measures nothing.

The two did not take turns. The interval of a ratio holds the spread between the rounds of each run, not what changed on
the machine between the runs: that is what the tolerance is for. `zoo bench latency A B` takes turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.markup import escape
from rich.table import Table

from serve.bench.kind import Timing, find_kinds, nothing, read_data
from serve.bench.measure.ratio import FEWEST_ROUNDS, Ratio, Verdict, unpaired_ratio
from serve.bench.report.checked import blaming
from zoo.errors import VerdictError, ZooError
from zoo.page.figures import empty_table
from zoo.results import Result, read_results
from zoo.rows import Positive, Row, Text
from zoo.wording import joined, milliseconds

FORMAT = "zoo-comparison-1"
# What may change a time besides the thing that was measured; of packages only those that both have.
_CIRCUMSTANCES = ("device", "processor", "cores_usable", "cuda_driver", "python")


@dataclass(frozen=True, kw_only=True)
class Change(Row):
    """One timing in both results: medians in milliseconds, and the time after as a share of that before."""

    name: Text
    before_ms: Positive
    after_ms: Positive
    ratio: Ratio


@dataclass(frozen=True, kw_only=True)
class ResultComparison(Row):
    """Two results compared. `verdict` is “slower” where any timing is, for certain and by more than the tolerance.

    `only_before` and `only_after` name timings that one result alone has; `circumstances` what else differs; `doubts`
    what each result says against itself: that its machine was not quiet.
    """

    written_too = ("verdict",)

    format: Literal["zoo-comparison-1"] = "zoo-comparison-1"
    kind: Text
    before: Text
    after: Text
    tolerance_percent: Positive
    changes: tuple[Change, ...]
    only_before: tuple[Text, ...]
    only_after: tuple[Text, ...]
    circumstances: tuple[Text, ...]
    doubts: tuple[Text, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of all changes: slower, unclear, even, faster."""
        found = {change.ratio.verdict for change in self.changes}
        worst: tuple[Verdict, ...] = ("slower", "unclear", "even", "faster")
        return next(verdict for verdict in worst if verdict in found)


def compare_results(before: Path, after: Path, tolerance_percent: float) -> ResultComparison:
    """Read two results and compare every timing that both have.

    A timing is known by its name; where each result is of one thing, the thing's name does not matter: files of two
    versions are called differently.

    Raises:
        ZooError: a file that is no result, results of different kinds, or nothing that both have; rounds too few for an
            interval.
    """
    with blaming([before, after]):
        return _compare(before, after, tolerance_percent)


def _compare(before: Path, after: Path, tolerance_percent: float) -> ResultComparison:
    one, other = map(_read, (before, after))
    if one.kind != other.kind:
        raise ZooError(
            f"{before.name} is of the kind {one.kind}, {after.name} of the kind {other.kind}.",
            "Only results of the same benchmark can be compared.",
        )
    found = [_timings(result) for result in (one, other)]
    alone = all(len({timing.subject for timing in timings}) == 1 for timings in found)
    old, new = ({_name(timing, alone): timing for timing in timings} for timings in found)
    shared = [name for name in old if name in new]
    if not shared:
        raise ZooError(
            f"{before.name} and {after.name} have no timing in common: one has {_some(old)}, the other {_some(new)}.",
            "Measure the same settings (batch sizes, scenario, image size) in both.",
        )
    return ResultComparison(
        kind=one.kind,
        before=before.name,
        after=after.name,
        tolerance_percent=tolerance_percent,
        changes=tuple(_change(name, old[name], new[name], tolerance_percent) for name in shared),
        only_before=tuple(name for name in old if name not in new),
        only_after=tuple(name for name in new if name not in old),
        circumstances=tuple(_differences(one, other)),
        doubts=tuple(
            f"{path.name}: {doubt}" for path, result in ((before, one), (after, other)) for doubt in _doubts(result)
        ),
    )


def _doubts(result: Result) -> Iterable[str]:
    kind, run = read_data(result)
    return kind.warnings(run)


def _read(path: Path) -> Result:
    if path.is_dir():
        raise ZooError(f"{path} is a folder, and two results are compared.", "Name two files of results.")
    return read_results([path], find_kinds())[0]


def _name(timing: Timing, alone: bool) -> str:
    return timing.setting if alone else f"{timing.subject}, {timing.setting}"


def _timings(result: Result) -> list[Timing]:
    kind, run = read_data(result)
    found = list(kind.timings(run))
    if not found:
        raise ZooError(
            f"A result of the kind {kind.name} has no rounds to compare.",
            f"Results of {joined(each.name for each in find_kinds().values() if each.timings is not nothing)} have.",
        )
    return found


def _change(name: str, old: Timing, new: Timing, tolerance_percent: float) -> Change:
    for timing in (old, new):
        if len(timing.round_p50_ms) < FEWEST_ROUNDS:
            raise ZooError(
                f"{name}: of {len(timing.round_p50_ms)} rounds no interval can be made; it takes {FEWEST_ROUNDS}.",
                "Measure again with this version.",
            )
    ratio = unpaired_ratio(new.round_p50_ms, old.round_p50_ms, within=tolerance_percent / 100)
    return Change(name=name, before_ms=old.p50_ms, after_ms=new.p50_ms, ratio=ratio)


def _differences(one: Result, other: Result) -> Iterator[str]:
    """What else is different between two runs, in words."""
    for key in _CIRCUMSTANCES:
        before, after = one.environment.get(key), other.environment.get(key)
        if before != after:
            yield f"{key.replace('_', ' ')}: {before} → {after}"
    old, new = (result.environment.get("packages") for result in (one, other))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for package in sorted(old.keys() & new.keys()):
            if old[package] != new[package]:
                yield f"{package}: {old[package]} → {new[package]}"
    facts = [_facts(result) for result in (one, other)]
    for name, before, after in zip(("precision", "threads"), *facts, strict=True):
        if before != after:
            yield f"{name}: {before} → {after}"


def _facts(result: Result) -> tuple[str, str]:
    precisions = dict.fromkeys(str(subject.precision) for subject in result.subjects)
    threads = dict.fromkeys(str(subject.threads) for subject in result.subjects)
    return joined(precisions) or "unknown", joined(threads) or "unknown"


def _some(timings: Mapping[str, Any]) -> str:
    names = list(timings)
    return joined(names[:3]) if len(names) <= 3 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def comparison_lines(compared: ResultComparison) -> Iterator[Table | str]:
    """A comparison for a terminal: its table, then what follows from it."""
    table = empty_table(
        f"{compared.before} → {compared.after} · tolerance {compared.tolerance_percent:g} %",
        ("timing", "before", "after", "time after ÷ before", ""),
        words=(0, 4),
    )
    colours = {"slower": "red", "faster": "green", "unclear": "yellow", "even": "dim"}
    for change in compared.changes:
        ratio = change.ratio
        interval = f"{ratio.value:.3f} ({ratio.low:.3f} – {ratio.high:.3f})"
        verdict = f"[{colours[ratio.verdict]}]{ratio.verdict}[/]"
        table.add_row(
            escape(change.name), milliseconds(change.before_ms), milliseconds(change.after_ms), interval, verdict
        )
    yield table
    yield from (f"• {escape(doubt)}" for doubt in compared.doubts)
    for circumstance in compared.circumstances:
        yield f"• Not the same: {escape(circumstance)}"
    for names, where in ((compared.only_before, compared.before), (compared.only_after, compared.after)):
        if names:
            yield f"• Only in {escape(where)}: {escape(joined(names))}"
    unclear = [change.name for change in compared.changes if change.ratio.verdict == "unclear"]
    if unclear:
        in_turn = ", or in turn in one command: `zoo bench latency A B`" if compared.kind == "latency" else ""
        yield f"• Unclear: {escape(joined(unclear))}. Measure both longer (--duration-s){in_turn}."


def check_comparison(compared: ResultComparison, *, strict: bool) -> None:
    """Fail where a timing is slower by more than the tolerance; if `strict` also where that cannot be ruled out.

    Raises:
        VerdictError: names the timings.
    """
    failing = ("slower", "unclear") if strict else ("slower",)
    slower = [
        f"{change.name} {change.ratio.value:.2f}× ({change.ratio.low:.2f} – {change.ratio.high:.2f})"
        for change in compared.changes
        if change.ratio.verdict in failing
    ]
    if slower:
        perhaps = ", or may be," if strict else ""
        raise VerdictError(
            f"Slower{perhaps} by more than {compared.tolerance_percent:g} %: {joined(slower)}.",
            "Measure both again; --tolerance allows more. `zoo bench latency A B` times artifacts in turn.",
        )
