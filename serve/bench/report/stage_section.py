"""Owns the part of the page that shows MBConv against Fused-MBConv: the verdicts, the bars, the figures."""

from __future__ import annotations

from collections.abc import Sequence

from serve.bench.measure.stages import OPERATOR_NAMES, FormRow, StageRow, times, total_ms
from serve.bench.report.measured import StagesRun
from serve.bench.report.sections import variation
from zoo.page.charts import Bar, Group, bar_chart
from zoo.page.elements import pill, table
from zoo.page.markup import Child, Markup, join, tag
from zoo.wording import count, digits, milliseconds, plain_name

_SHORT = {"mbconv": "MBConv", "fused_mbconv": "Fused", "even": "even"}


def glance(runs: Sequence[StagesRun], *, name_devices: bool = False) -> Markup:
    """Who wins where at one look: the network's own choice, then a row of verdicts per run of the same network."""
    stages = runs[0].rows
    own = [_tile(_SHORT[row.paper_operator], "", row.paper_operator) for row in stages]
    lines = [tag("tr", tag("th", f"{runs[0].variant.id} as published"), *own)]
    for run in runs:
        label = f"{run.image_size} px, batch {run.batch_size}, {run.precision}"
        head = tag("th", plain_name(run.result.device) if name_devices else "measured", tag("small", label))
        tiles = [_tile(_SHORT[row.winner], _ratio(row), row.winner) for row in run.rows]
        lines.append(tag("tr", head, *tiles))
    heads = tag("tr", tag("td"), *(tag("th", tag("span", "Stage "), str(row.index)) for row in stages))
    style = f"--stages:{len(stages)}"
    return tag("table", tag("thead", heads), tag("tbody", *lines), class_="glance", style=style)


def stages_section(run: StagesRun) -> Markup:
    """Bars of both forms of every stage, what the choice is worth in all, and the figures."""
    return tag(
        "section",
        tag("h3", f"MBConv or Fused-MBConv: {run.conditions}"),
        bar_chart(
            [_stage_group(row) for row in run.rows],
            title="Time of each stage in both forms",
            description="Median of the rounds; whiskers from the fastest to the slowest round; ◆ is the form the "
            "network was published with.",
            axis="ms",
            legend=[("mbconv", "MBConv"), ("fused_mbconv", "Fused-MBConv")],
        ),
        _stage_table(run),
        _total_chart(run),
        tag(
            "p",
            "Stages are timed one at a time with PyTorch's kernels: batch norm folded into the convolutions, "
            "activations as kernels of their own. A TensorRT engine fuses more and chooses kernels for the whole "
            "network, so read this as which form suits the device, not as an engine's latency.",
            class_="note",
        ),
    )


def _tile(word: str, ratio: str, colour: str) -> Markup:
    return tag("td", tag("span", word), tag("small", ratio) if ratio else None, class_=f"tile {colour}")


def _ratio(row: StageRow) -> str:
    return "" if row.winner == "even" else times(max(row.fused_speedup, 1 / row.fused_speedup))


def _stage_group(row: StageRow) -> Group:
    blocks = f"{row.num_layers} block{'s' if row.num_layers > 1 else ''}"
    return Group(
        heading=f"Stage {row.index}",
        detail=f"{row.in_channels}→{row.out_channels} channels, {row.out_size} px, {blocks}, expand {row.expand_ratio}",
        note=pill(row.verdict, row.winner),
        bars=[
            Bar(
                label=join(
                    OPERATOR_NAMES[form.operator],
                    tag("b", " ◆", title="as published") if form.operator == row.paper_operator else None,
                ),
                value=form.ms,
                text=milliseconds(form.ms),
                colour=form.operator,
                spoken=f"Stage {row.index}, {OPERATOR_NAMES[form.operator]}: {milliseconds(form.ms)}, rounds from "
                f"{milliseconds(form.best_ms)} to {milliseconds(form.worst_ms)}",
                low=form.best_ms,
                high=form.worst_ms,
                faded=row.winner not in ("even", form.operator),
            )
            for form in row.forms
        ],
    )


def _stage_table(run: StagesRun) -> Markup:
    rows: list[list[Child]] = []
    for row in run.rows:
        for form in row.forms:
            first = form is row.forms[0]
            place = f"{row.in_channels}→{row.out_channels}, {row.out_size} px" if first else ""
            rows.append([str(row.index) if first else "", place, _form_name(row, form), *_form_cells(row, form)])
    heads = ("", "stage", "form", "ms", "rounds", "MACs", "GMAC/s", "params", "variation", "n")
    return table(heads, rows, caption="Both forms of every stage; MACs of one picture", words=(0, 1, 2))


def _form_name(row: StageRow, form: FormRow) -> Markup:
    own = " ◆" if form.operator == row.paper_operator else ""
    name = f"{OPERATOR_NAMES[form.operator]}{own}"
    return pill(name, form.operator) if form.operator == row.winner else join(name)


def _form_cells(row: StageRow, form: FormRow) -> list[Child]:
    time = digits(form.ms)
    return [
        tag("strong", time) if form.operator == row.winner else time,
        f"{digits(form.best_ms)}–{digits(form.worst_ms)}",
        count(form.macs),
        digits(form.gmacs_per_s),
        count(form.num_params),
        variation(form.latency),
        f"{form.latency.n:,}",
    ]


def _total_chart(run: StagesRun) -> Markup:
    totals = total_ms(run.rows)
    ways = (
        ("paper", "as published", "series-2"),
        ("mbconv", "MBConv only", "mbconv"),
        ("fused_mbconv", "Fused only", "fused_mbconv"),
        ("fastest", "fastest each", "series-1"),
    )
    bars = [
        Bar(
            label=name,
            value=totals[key],
            text=milliseconds(totals[key]),
            colour=colour,
            spoken=f"{name}: {milliseconds(totals[key])}",
        )
        for key, name, colour in ways
    ]
    return bar_chart(
        [Group(heading=f"{run.variant.id}, all stages", bars=bars)],
        title="What the choice is worth",
        description="The sum of the stages above under four ways of choosing, without stem and head.",
        axis="ms",
    )
