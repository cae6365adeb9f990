"""Owns the tables of figures in the pages: each from a committed file of benchmarks/, none by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from made.markdown import table as markdown_table
from serve.bench.kind import Kind, Measured, read_data
from serve.bench.kinds.backends import BackendsData
from serve.bench.kinds.finetuning import FinetuningData
from serve.bench.kinds.peers import PASSES, PeersData
from serve.bench.kinds.quantization import QuantizationData
from serve.bench.report.exports import plain_table
from zoo.results import read_results

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

Rows = list[dict[str, Any]]


def table(rest: str, body: str) -> str:
    """`result peers FILE`: figures of a committed result, whose name may have a `*`; `result decoding FILE GROUP`."""
    kind, pattern, *group = rest.split()
    files = sorted(BENCHMARKS.glob(pattern))
    if not files:
        raise LookupError(f"benchmarks/ has no {pattern}")
    return TABLES[kind]([json.loads(path.read_text(encoding="utf-8")) for path in files], *group)


def peers(results: Sequence[Any]) -> str:
    """Ours over theirs, a line a pair of networks and way of running them, a column for each pass."""
    rows = PeersData.from_dict(results[0]["data"]).rows
    modes = list(dict.fromkeys(row.mode for row in rows))
    varied = len({(row.batch_size, row.threads) for row in rows if row.network == rows[0].network}) > 1
    lines = []
    pairs = dict.fromkeys((row.network, row.peer, row.detail if varied else "") for row in rows)
    for network, peer, detail in pairs:
        by_mode = {
            row.mode: row.ours_over_theirs
            for row in rows
            if (row.network, row.peer) == (network, peer) and detail in ("", row.detail)
        }
        what = ", ".join(filter(None, (network, peer, detail)))
        ratios = [by_mode[mode] for mode in modes]
        lines.append([what, *(f"{ratio.p50:.3f} ({ratio.low:.3f} – {ratio.high:.3f})" for ratio in ratios)])
    return markdown_table(["", *(PASSES[mode] for mode in modes)], lines, right=range(1, len(modes) + 1))


def backends(results: Sequence[Any]) -> str:
    """One network in every back end, a line each: its time, over the baseline's, and how far its answers are."""
    data = BackendsData.from_dict(results[0]["data"])
    lines = [
        [
            f"{row.network}, {row.backend}",
            row.precision,
            f"{row.latency.p50_ms:.2f}",
            f"{row.over_baseline.p50:.2f} ({row.over_baseline.low:.2f} – {row.over_baseline.high:.2f})",
            f"{row.relative_max_error:.1e}",
            f"{row.relative_mean_error:.1e}",
            "random weights" if row.random_weights else f"{row.top1_agreement:.1%} of {row.pictures}",
            "–" if row.failures is None else "failed" if row.failures else "passed",
        ]
        for row in data.rows
    ]
    heads = [
        "",
        "computes in",
        "ms",
        f"over {data.baseline}",
        "largest error",
        "mean error",
        "same first class",
        "gate",
    ]
    return markdown_table(heads, lines, right=range(2, len(heads)))


def conditioning(results: Sequence[Any]) -> str:
    """RMS errors of fp32 against fp64, a line a network: undamped, and as exported at the small and its own size."""
    rows: Rows = results[0]["data"]["rows"]
    lines = []
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        cells = [f"{row['relative_rms_error']:.1e}{'' if row['passed'] else ' (refused)'}" for row in own]
        cells[2:] = [f"{cell}, {row['image_size']} px" for cell, row in zip(cells[2:], own[2:], strict=True)]
        lines.append([network, *cells, *[""] * (3 - len(cells)), f"{own[1]['classes']} of {own[1]['n']}"])
    small = rows[0]["image_size"]
    heads = ["", f"undamped, {small} px", f"as exported, {small} px", "at its own size", "different first classes"]
    return markdown_table(heads, lines, right=(1, 2, 3, 4))


def quantization(results: Sequence[Any]) -> str:
    """What every form keeps, and its time where it was taken, or its accuracy; a line a form."""
    lines, rows = [], QuantizationData.from_dict(results[0]["data"]).rows
    judged = all(row.top1 is not None for row in rows)
    for row in rows:
        if judged:
            last = f"{row.top1:.2%} (float32 {row.float32_top1:.2%})"
        else:
            last = "" if row.time_share is None else f"{row.time_share:.2f}"
        kept = f"{len(row.kept)}, {row.kept_macs_share:.1%}" if row.kept else ""
        form = f"{row.precision}, {row.layout}, {row.how}"
        lines.append(
            [form, f"{row.agreement:.1%}", f"{row.relative_rms_error:.3f}", kept, f"{row.bytes / 1e6:.1f}", last]
        )
    heads = ["", "same answers", "RMS error of the logits", "modules in float, of the MACs", "MB"]
    return markdown_table([*heads, "right" if judged else "time, of fp32"], lines, right=range(1, 6))


def progressive(results: Sequence[Any]) -> str:
    """Accuracy and time of every way of training; shares are medians over pairs of equal seed."""
    rows: Rows = results[0]["data"]["rows"]
    arms = {arm: [row for row in rows if row["arm"] == arm] for arm in dict.fromkeys(row["arm"] for row in rows)}
    base = list(arms.values())[-1]
    lines = []
    for arm, own in arms.items():
        top1 = [100 * row["top1"] for row in own]
        shares = [share(own, base, key) for key in ("seconds", "processor_seconds")]
        lines.append([arm, f"{mean(top1):.1f} ± {stdev(top1):.1f} %", *(f"{100 * value:.0f} %" for value in shares)])
    head = ["", "top-1, mean ± standard deviation", "time of training, of fixed", "processor time of the run, of fixed"]
    return markdown_table(head, lines, right=(1, 2, 3))


def finetuning(results: Sequence[Any]) -> str:
    """Accuracy of every contender on every set, %, and how far the first one is ahead of it, in points."""
    data = FinetuningData.from_dict(results[0]["data"])
    ours, lines = data.contenders[0], []
    for contender in data.contenders:
        cells = []
        for name in data.sets:
            right, ahead = data.right(contender, name), data.difference(ours, contender, name)
            interval = "" if contender == ours else f" ({ahead.low:+.1f} … {ahead.high:+.1f})"
            cells.append(f"{100 * sum(right) / len(right):.1f}{interval}")
        lines.append([contender.replace("_", " "), *cells])
    heads = [f"{name}, {len(data.right(ours, name)):,} pictures" for name in data.sets]
    return markdown_table(["", *heads], lines, right=range(1, len(heads) + 1))


def share(own: Rows, base: Rows, key: str) -> float:
    """One arm's time as a share of the other's, seed by seed."""
    of_seed = {row["seed"]: row[key] for row in base}
    return median(row[key] / of_seed[row["seed"]] for row in own)


def loader(results: Sequence[Any]) -> str:
    """Pictures a second, ours over torchvision's and timm's, a line for each kind of file and of loader."""
    lines = []
    for result in results:
        rows: Rows = result["data"]["rows"]
        files = "as `zoo data pack` writes them" if result["settings"]["packed"] else "JPEGs of 500 × 375"
        for key, where in (("ours_over_theirs", ""), ("for_gpu_over_theirs", ", flipped and RandAugmented by a GPU")):
            cells = []
            for size in dict.fromkeys(row["image_size"] for row in rows):
                ratio = {row["pipeline"]: row[key]["p50"] for row in rows if row["image_size"] == size}
                cells.append(f"{ratio['torchvision']:.1f} / {ratio['timm']:.1f}")
            lines.append([files + where, *cells])
    return markdown_table(["", "128 px", "300 px"], lines, right=(1, 2))


def decoding(results: Sequence[Any], group: str) -> str:
    """What every candidate of a group takes for a picture, ms."""
    rows: Rows = [row for row in results[0]["data"]["rows"] if row["group"] == group]
    places = list(dict.fromkeys(row["at"] for row in rows))
    took = {(row["what"], row["at"]): f"{row['ms']:.2f}" for row in rows}
    lines = [
        [what, *(took.get((what, at), "") for at in places)] for what in dict.fromkeys(row["what"] for row in rows)
    ]
    return markdown_table(["ms a picture", *places], lines, right=range(1, len(places) + 1))


def headlines(rest: str, body: str) -> str:
    """`headlines peers fusion*`: what a report says first of every committed result of these kinds, or with * all.

    That the machine was not quiet stands in the same line.
    """
    lines = []
    for name in rest.split():
        for path in sorted(BENCHMARKS.glob(f"{name.removesuffix('*')}-*.json")):
            kind, run = _read(path)
            sentences = list(kind.headlines([run]))
            told = sentences if name.endswith("*") else sentences[:1]
            lines += [f"- {' '.join([*kind.warnings(run), sentence])}\n" for sentence in told]
    return "".join(lines)


def sentences(rest: str, body: str) -> str:
    """`sentences search`: all that a report says of the committed results of these kinds, warnings first."""
    found = [_read(path) for name in rest.split() for path in sorted(BENCHMARKS.glob(f"{name}-*.json"))]
    return "".join(
        f"- {sentence}\n" for kind, run in found for sentence in (*kind.warnings(run), *kind.headlines([run]))
    )


def figures(rest: str, body: str) -> str:
    """`figures search-digits-*.json 2`: one table of a committed result, as its page has it, counted from 1."""
    pattern, number = rest.split()
    (path,) = BENCHMARKS.glob(pattern)
    kind, run = _read(path)
    caption, heads, rows = plain_table(list(kind.tables(run))[int(number) - 1])
    return f"{caption}:\n\n{markdown_table(heads, rows)}"


def _read(path: Path) -> tuple[Kind, Measured[Any]]:
    (result,) = read_results([path])
    return read_data(result)


TABLES: dict[str, Callable[..., str]] = {
    "peers": peers,
    "backends": backends,
    "conditioning": conditioning,
    "finetuning": finetuning,
    "quantization": quantization,
    "progressive": progressive,
    "loader": loader,
    "decoding": decoding,
}
