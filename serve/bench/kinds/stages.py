"""Owns results of MBConv against Fused-MBConv, stage by stage; `serve.bench.measure` times them and says who wins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from serve.bench.kind import Kind, Measured
from serve.bench.measure.stages import OPERATORS, FormRow, StageRow, StagesData, Winner
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS
from zoo.page.charts import Bar, Group, bar_chart
from zoo.page.elements import pill
from zoo.page.figures import Figures, empty_table, to_page, variation
from zoo.page.markup import Child, Markup, join, tag
from zoo.wording import (
    OPERATOR_COLOURS,
    OPERATOR_NAMES,
    count,
    digits,
    milliseconds,
    percent,
    plain_name,
    stage_list,
    times,
)

_SHORT = {"mbconv": "MBConv", "fused_mbconv": "Fused", "even": "even"}
_COLOURS = OPERATOR_COLOURS | {"even": "dim"}

MeasuredStages = Measured[StagesData]


def section(run: MeasuredStages) -> Markup:
    """Bars of both forms of every stage, what the choice is worth in all, and the figures."""
    return tag(
        "section",
        tag("h3", f"MBConv or Fused-MBConv: {run.data.conditions}"),
        bar_chart(
            [_stage_group(row) for row in run.data.rows],
            title="Time of each stage in both forms",
            description="Median of the rounds; whiskers from the fastest to the slowest round; ◆ is the form the "
            "network was published with.",
            axis="ms",
            legend=[(operator, OPERATOR_NAMES[operator]) for operator in OPERATORS],
        ),
        *to_page([_figures(run.data)]),
        _total_chart(run.data),
        tag(
            "p",
            "Stages are timed one at a time with PyTorch's kernels: batch norm folded into the convolutions, "
            "activations as kernels of their own. A TensorRT engine fuses more and chooses kernels for the whole "
            "network, so read this as which form suits the device, not as an engine's latency.",
            class_="note",
        ),
    )


def _stage_group(row: StageRow) -> Group:
    blocks = f"{row.num_layers} block{'s' if row.num_layers > 1 else ''}"
    bars = []
    for form in row.forms:
        name, text, ends = OPERATOR_NAMES[form.operator], milliseconds(form.ms), (form.best_ms, form.worst_ms)
        mark = tag("b", " ◆", title="as published") if form.operator == row.paper_operator else None
        bars.append(
            Bar(
                label=join(name, mark),
                value=form.ms,
                text=text,
                colour=form.operator,
                spoken=f"Stage {row.index}, {name}: {text}, rounds from {' to '.join(map(milliseconds, ends))}",
                low=form.best_ms,
                high=form.worst_ms,
                faded=row.winner not in ("even", form.operator),
            )
        )
    return Group(
        heading=f"Stage {row.index}",
        detail=f"{row.in_channels}→{row.out_channels} channels, {row.out_size} px, {blocks}, expand {row.expand_ratio}",
        note=pill(row.verdict, row.winner),
        bars=bars,
    )


def _figures(data: StagesData) -> Figures:
    rows: list[list[Child]] = []
    for row in data.rows:
        place = [str(row.index), f"{row.in_channels}→{row.out_channels}, {row.out_size} px"]
        for form in row.forms:
            name = f"{OPERATOR_NAMES[form.operator]}{' ◆' if form.operator == row.paper_operator else ''}"
            cells: list[Child] = [name, digits(form.ms)]
            if form.operator == row.winner:
                cells = [pill(name, form.operator), tag("strong", digits(form.ms))]
            counts = [count(form.macs), digits(form.gmacs_per_s), count(form.num_params)]
            rows.append([*place, *cells, _range(form), *counts, variation(form.latency), f"{form.latency.n:,}"])
            place = ["", ""]
    heads = ("", "stage", "form", "ms", "rounds", "MACs", "GMAC/s", "params", "variation", "n")
    return Figures(heads=heads, rows=rows, caption="Both forms of every stage; MACs of one picture", words=(0, 1, 2))


def _range(form: FormRow) -> str:
    return f"{digits(form.best_ms)}–{digits(form.worst_ms)}"


def _total_chart(data: StagesData) -> Markup:
    ways = (
        ("paper", "as published", "series-2"),
        ("mbconv", "MBConv only", "mbconv"),
        ("fused_mbconv", "Fused only", "fused_mbconv"),
        ("fastest", "fastest each", "series-1"),
    )
    bars = []
    for key, name, colour in ways:
        value, text = data.total_ms[key], milliseconds(data.total_ms[key])
        bars.append(Bar(label=name, value=value, text=text, colour=colour, spoken=f"{name}: {text}"))
    return bar_chart(
        [Group(heading=f"{data.model}, all stages", bars=bars)],
        title="What the choice is worth",
        description="The sum of the stages above under four ways of choosing, without stem and head.",
        axis="ms",
    )


def glance(runs: Sequence[MeasuredStages], *, name_devices: bool = False) -> list[Markup]:
    """Who wins where at one look: for each network its own choice, then a row of verdicts per run."""
    networks: dict[
        Variant, list[MeasuredStages]
    ] = {}  # a checkpoint's row may differ from the table's of the same name
    for run in runs:
        networks.setdefault(run.data.variant, []).append(run)
    return [_glance(variant, of_one, name_devices) for variant, of_one in networks.items()]


def across(runs: Sequence[MeasuredStages]) -> list[Markup]:
    """The same network on several devices, side by side."""
    return [tag("h2", "Who wins where, device by device"), *glance(runs, name_devices=True)]


def _glance(variant: Variant, runs: Sequence[MeasuredStages], name_devices: bool) -> Markup:
    stages = runs[0].data.rows
    own = [_tile(_SHORT[row.paper_operator], "", row.paper_operator) for row in stages]
    lines = [tag("tr", tag("th", f"{variant.id} as published"), *own)]
    for run in runs:
        label = f"{run.data.image_size} px, batch {run.data.batch_size}, {run.data.precision}"
        head = tag("th", plain_name(run.result.device) if name_devices else "measured", tag("small", label))
        tiles = [_tile(_SHORT[row.winner], row.ratio, row.winner) for row in run.data.rows]
        lines.append(tag("tr", head, *tiles))
    heads = tag("tr", tag("td"), *(tag("th", tag("span", "Stage "), str(row.index)) for row in stages))
    style = f"--stages:{len(stages)}"
    return tag("table", tag("thead", heads), tag("tbody", *lines), class_="glance", style=style)


def _tile(word: str, ratio: str, colour: str) -> Markup:
    return tag("td", tag("span", word), tag("small", ratio) if ratio else None, class_=f"tile {colour}")


def headlines(runs: Sequence[MeasuredStages]) -> Iterator[str]:
    """Who wins where in every run, then the details of the run that worked hardest."""
    by_work = sorted(runs, key=lambda run: -max(form.gmacs_per_s for row in run.data.rows for form in row.forms))
    for run in by_work:
        yield f"On {plain_name(run.result.device)}, {_winners(run.data)} ({run.data.conditions})."
    data = by_work[0].data
    yield from _details(data, f" ({data.conditions})" if len(by_work) > 1 else "")


def _winners(data: StagesData) -> str:
    """“Fused-MBConv wins stages 1–3; MBConv wins stages 4–6”: lists inside a list take a semicolon between."""
    said = []
    order: tuple[Winner, ...] = ("fused_mbconv", "mbconv", "even")
    for winner in order:
        won = [row.index for row in data.rows if row.winner == winner]
        if len(won) == len(data.rows):
            return "every stage is even" if winner == "even" else f"{OPERATOR_NAMES[winner]} wins every stage"
        if won and winner == "even":
            said.append(f"{stage_list(won)} {'is' if len(won) == 1 else 'are'} even")
        elif won:
            said.append(f"{OPERATOR_NAMES[winner]} wins {stage_list(won)}")
    return "; ".join(said)


def _details(data: StagesData, conditions: str) -> Iterator[str]:
    agreeing = sum(row.winner in (row.paper_operator, "even") for row in data.rows)
    share = "every stage" if agreeing == len(data.rows) else f"{agreeing} of {len(data.rows)} stages"
    network = "The published network" if data.variant in VARIANTS else "The network's row"
    yield f"{network} uses the faster form, or one as fast, in {share}{conditions}."
    # The project's point in one number: where more arithmetic takes less time.
    telling = [row for row in data.rows if row.winner == "fused_mbconv" and row.fused_mbconv.macs > row.mbconv.macs]
    if telling:
        row = max(telling, key=lambda row: row.fused_mbconv.gmacs_per_s / row.mbconv.gmacs_per_s)
        yield (
            f"In stage {row.index} Fused-MBConv does {times(row.fused_mbconv.macs / row.mbconv.macs)} the "
            f"multiply-adds of MBConv in {percent(1 / row.fused_speedup)} of its time{conditions}."
        )
    total = data.total_ms
    yield (
        f"All stages together take {milliseconds(total['paper'])} as published, {milliseconds(total['mbconv'])} with "
        f"MBConv only and {milliseconds(total['fused_mbconv'])} with Fused-MBConv only{conditions}."
    )


def tables(run: MeasuredStages) -> list[Table]:
    """One table of every stage in both forms, the faster one coloured."""
    device, conditions = plain_name(run.result.device), run.data.conditions
    title = f"{device} · {conditions} · median ms per batch (range of the rounds); ◆ as published"
    forms = [head for operator in OPERATORS for head in (OPERATOR_NAMES[operator], "MACs")]
    table = empty_table(title, ["stage", "channels", "map", "blocks", *forms, "faster"], words=(8,))
    for row in run.data.rows:
        cells = [f"{row.in_channels}→{row.out_channels}", f"{row.in_size}→{row.out_size}", str(row.num_layers)]
        for form in row.forms:
            cells += [_milliseconds(row, form), f"[dim]{count(form.macs)}[/]"]
        table.add_row(str(row.index), *cells, f"[{_COLOURS[row.winner]}]{row.verdict}[/]")
    return [table]


def _milliseconds(row: StageRow, form: FormRow) -> str:
    won, own = form.operator == row.winner, form.operator == row.paper_operator
    text = f"[bold {_COLOURS[form.operator]}]{digits(form.ms)}[/]" if won else digits(form.ms)
    return f"{text}\N{NO-BREAK SPACE}[dim]({_range(form)})[/]\N{NO-BREAK SPACE}{'◆' if own else ' '}"


KIND = Kind(
    name="stages",
    place=10,
    read=StagesData.from_dict,
    section=section,
    headlines=headlines,
    tables=tables,
    glance=glance,
    across=across,
    summaries=lambda run: [form.latency for row in run.data.rows for form in row.forms],
    networks=lambda run: [(run.data.variant, run.data.image_size, 1000)],
)
