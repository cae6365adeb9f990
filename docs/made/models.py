"""Owns docs/models.md, every network with its weights and its stages, and the table of docs/which-network.md."""

from __future__ import annotations

from made.markdown import cells, code, table
from zoo.model.counts import count_macs, count_params, parts
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS, find_variant
from zoo.weights.spec import Weights
from zoo.weights.table import weights_of
from zoo.wording import OPERATOR_NAMES, digits


def page() -> str:
    """All networks, their weights, and their stages."""
    lines = [
        "# Models",
        "",
        "Made from the rows in `zoo/model/variants.py` and `zoo/weights/table.py` by `make docs`. MACs are",
        "multiply-adds of one picture at the eval size; parameters are trainable ones at 1,000 classes. Top-1 is that",
        "of the most accurate [weights](#weights), at the size beside it; where none are published, it is empty. A",
        "network of your own is a file: [your-own-network.md](your-own-network.md). Undecided?",
        "[Which network?](which-network.md)",
        "",
        "| id | network | params | GMACs | train px | eval px | top-1 | source |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for v in VARIANTS:
        lines.append(
            f"| `{v.id}` | {v.name} | {count_params(v):,} | {count_macs(v) / 1e9:.3g} "
            f"| {v.train_size} | {v.eval_size} | {published(v)} | {v.source} |"
        )
    lines += [
        "",
        "## Weights",
        "",
        "Fetched by `zoo pull ID`, or in a package. The hash is as much of the file's SHA-256 as is published.",
        "",
        "| id | input | licence | top-1 | top-5 | read in | file | SHA-256 |",
        "|---|---|---|---:|---:|---|---|---|",
    ]
    lines += [weights_line(row) for v in VARIANTS for row in weights_of(v.id)]
    for v in VARIANTS:
        lines += [
            "",
            f"## `{v.id}`: {v.name}",
            "",
            f"At {v.eval_size} px.",
            "",
            "| stage | operator | kernel | stride | expand | SE | channels | layers | out px | params | MMACs |",
            "|---:|---|---:|---:|---:|---:|---|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {p.index} | {OPERATOR_NAMES[p.operator]} | {p.kernel_size} | {p.stride} | {p.expand_ratio} "
            f"| {p.se_ratio or ''} | {p.in_channels} → {p.out_channels} | {p.num_layers} | {p.size} "
            f"| {p.num_params:,} | {p.macs / 1e6:,.1f} |"
            for p in parts(v)
        ]
    return "\n".join(lines) + "\n"


def which(rest: str, body: str) -> str:
    """The table's own needs, networks and reasons, with figures between; a new line is `| NEED | `ID` | WHY |`."""
    lines = []
    for need, id, *_, why in cells(body)[2:]:
        variant = find_variant(id.strip("`"))
        best = next(iter(weights_of(variant.id)), None)
        side = best.preprocessing.image_size if best else variant.eval_size  # weights may be for another size
        size = f"{digits(count_params(variant) / 1e6)} M", f"{digits(count_macs(variant, image_size=side) / 1e9)} G"
        weights = [code(best.id), best.licence] if best else ["train it", ""]
        lines.append([need, id, *size, published(variant) or f"– at {side} px", *weights, why])
    head = ["you have, or want", "network", "params", "MACs", "top-1", "weights", "their licence", "why"]
    return table(head, lines, right=(2, 3, 4))


def published(variant: Variant) -> str:
    """“84.3% at 384 px”, of the weights that `zoo pull` fetches; nothing where none are published."""
    best = next(iter(weights_of(variant.id)), None)
    return f"{best.accuracy.top1:.1%} at {best.preprocessing.image_size} px" if best else ""


def weights_line(row: Weights) -> str:
    """One line of the table of published weights."""
    preprocessing, accuracy = row.preprocessing, row.accuracy
    resize = "squash" if preprocessing.resize == "squash" else f"crop of {preprocessing.resize_size}"
    top5 = f"{accuracy.top5:.2%}" if accuracy.top5 else ""
    file = f"[{row.file}]({row.url})" if row.url else f"package `{row.package}`"
    return (
        f"| `{row.id}` | {preprocessing.image_size} px, {resize}, {preprocessing.interpolation} | {row.licence} "
        f"| {accuracy.top1:.2%} | {top5} | {accuracy.source} | {file} | `{row.sha256_prefix}` |"
    )
