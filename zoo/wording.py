"""Owns how figures become words: milliseconds, counts, lists of stages, operators; it decides nothing about them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

# Every operator a network's table has (`zoo.model.counts.Part.operator`) as people call it, and its colour in a
# terminal; pages have style sheets.
OPERATOR_NAMES = {
    "conv": "Conv",
    "mbconv": "MBConv",
    "fused_mbconv": "Fused-MBConv",
    "bottleneck": "Bottleneck",
    "head": "Conv 1×1, pool, FC",
}
OPERATOR_COLOURS = {
    "conv": "grey62",
    "mbconv": "dodger_blue1",
    "fused_mbconv": "orange3",
    "bottleneck": "green",
    "head": "grey62",
}


def digits(value: float, significant: int = 3) -> str:
    """Three significant digits without exponents, thousands with commas: 0.0123, 1.23, 12.3, 1,234."""
    if value == 0:
        return "0"
    decimals = 0
    while decimals < 9 and round(abs(value), decimals) < 10 ** (significant - 1 - decimals):
        decimals += 1
    return f"{value:,.{decimals}f}"


def digits_or_dash(value: float | None) -> str:
    """`digits`, and a dash where there is no number."""
    return "–" if value is None else digits(value)


def milliseconds(value: float) -> str:
    """1.23 → “1.23 ms”."""
    return f"{digits(value)} ms"


def duration(seconds: float) -> str:
    """Two units at most: “8.4 s”, “3 min 12 s”, “2 h 5 min”, “3 d 4 h”; a number and its unit stay on one line."""
    if seconds < 59.95:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    whole = round(seconds)
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    (size, name), (smaller, smaller_name) = next(pair for pair in pairwise(units) if whole >= pair[0][0])
    parts = ((whole // size, name), (whole % size // smaller, smaller_name))
    return " ".join(f"{number}\N{NO-BREAK SPACE}{unit}" for number, unit in parts if number)


def count(value: float) -> str:
    """Large counts by their prefix: 21,458,488 → “21.5 M”, 8.37e9 → “8.37 G”."""
    for limit, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{digits(value / limit)} {prefix}"
    return f"{value:,.0f}"


def number_of(things: int, name: str) -> str:
    """“1 network”, “1,234 networks”: for names whose plural has an s."""
    return f"{things:,} {name}{'s' * (things != 1)}"


def percent(share: float) -> str:
    """0.0231 → “2.3 %”, 0.52 → “52 %”."""
    return f"{share * 100:.1f} %" if share < 0.0995 else f"{share * 100:.0f} %"


def times(ratio: float) -> str:
    """A ratio, never rounded to one where it is not: 1.04×, 1.8×, 12×."""
    return f"{ratio:.2f}×" if ratio < 1.1 else f"{ratio:.1f}×" if ratio < 10 else f"{ratio:.0f}×"


def with_threads(threads: int | None) -> str:
    """“1 thread”, “8 threads”; nothing of a GPU, or where nobody knows."""
    return f"{threads} thread{'s' * (threads > 1)}" if threads else ""


def plain_name(device: str) -> str:
    """A device's name without its trademark signs: “Intel(R) Core(TM) i7” → “Intel Core i7”."""
    return " ".join(re.sub(r"\((R|TM|C)\)|[®™]", "", device, flags=re.IGNORECASE).split())


def stage_list(indices: Sequence[int]) -> str:
    """Runs of three and more by their ends: [1, 2, 3, 5] → “stages 1–3 and 5”, [1, 3, 4] → “stages 1, 3 and 4”."""
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    named = [name for run in runs for name in ([f"{run[0]}–{run[-1]}"] if len(run) > 2 else map(str, run))]
    return f"stage{'s' if len(indices) > 1 else ''} {joined(named)}"


def joined(words: Iterable[str], last: str = "and") -> str:
    """A list in a sentence: ["a", "b", "c"] → “a, b and c”, or “a, b or c”; "" of none."""
    *first, end = [*words] or [""]
    return f"{', '.join(first)} {last} {end}" if first else end
