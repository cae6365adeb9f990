"""Owns results of MBConv against Fused-MBConv, stage by stage; `serve.bench.measure` times them and says who wins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from serve.bench.drawn.stages import (
    ALIKE,
    PROFILERS,
    SHORT,
    above_the_roof,
    crossover_maps,
    differing,
    in_place_chart,
    method_ratios,
    methods_chart,
    roofline_chart,
    squeeze_note,
    sum_doubt,
    sum_note,
    times_chart,
)
from serve.bench.engine_rows import find_engine
from serve.bench.kind import Kind, Measured, Timing
from serve.bench.measure.places import OPERATORS
from serve.bench.measure.ratio import Ratio
from serve.bench.measure.stage_rows import Winner, verdict_of
from serve.bench.measure.stages import FormRow, StageRow, StagesData
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS
from zoo.page.charts import Bar, Group, bar_chart
from zoo.page.elements import pill
from zoo.page.figures import Figures, to_page
from zoo.page.markup import Child, Markup, tag
from zoo.wording import (
    OPERATOR_NAMES,
    count,
    digits,
    digits_or_dash,
    joined,
    milliseconds,
    percent,
    plain_name,
    stage_list,
    times,
)

MeasuredStages = Measured[StagesData]


def section(run: MeasuredStages) -> Markup:
    """Both forms of every stage, the methods beside one another, the roofline, the map, and the figures."""
    data = run.data
    return tag(
        "section",
        tag("h3", f"MBConv or Fused-MBConv: {data.conditions}"),
        tag("p", data.warning, class_="note warned") if data.warning else None,
        times_chart(data),
        methods_chart(data),
        *(tag("p", sentence, class_="note") for sentence in _disagreements(data)),
        in_place_chart(data, data.in_place) if data.in_place else None,
        tag("p", sum_doubt(data.in_place), class_="note") if data.in_place and sum_doubt(data.in_place) else None,
        roofline_chart(data),
        tag("p", above_the_roof(data), class_="note") if above_the_roof(data) else None,
        *crossover_maps(data),
        *to_page(tables(run)),
        _total_chart(data),
        *(tag("p", note, class_="note") for note in (*data.notes, _how(data))),
    )


def _how(data: StagesData) -> str:
    engine = find_engine(data.engine).name
    if not data.backend:  # of the first version, which timed PyTorch's modules apart from any runner
        return (
            "Stages were timed one at a time with PyTorch's kernels, batch norm folded into the convolutions: which "
            "form suits the device in PyTorch, not in an engine."
        )
    return (
        f"Each stage was exported, compared with PyTorch and timed through its runner in {engine} ({data.backend}), "
        "with the layer that makes its map and the pooling behind it taken off."
    )


def _disagreements(data: StagesData, of: str = "") -> Iterator[str]:
    """Where the methods call different forms the faster one; `of` is said of which run where there are several."""
    for row in data.rows:
        if data.disagreement(row.index):
            said = [f"{name} {OPERATOR_NAMES.get(winner, winner)}" for name, winner in data.winners(row.index).items()]
            yield f"In stage {row.index} the methods disagree on the faster form: {joined(said)}{of}."
    if stages := differing(data):
        yield (
            f"In {stage_list(stages)} the methods agree on the faster form, but their ratios differ by more than "
            f"{percent(ALIKE - 1)}{of}."
        )


def tables(run: MeasuredStages) -> list[Figures]:
    """Every figure: both forms, the methods, the layers in place, the map."""
    data = run.data
    found = [_forms(data), _work(data)]
    found += [_methods(data)] if data.exchange else []
    found += [_in_place(data)] if data.in_place else []
    found += [_map(data)] if data.crossover else []
    return found


def _forms(data: StagesData) -> Figures:
    rows: list[list[Child]] = []
    for row in data.rows:
        place = [str(row.index), f"{row.in_channels}→{row.out_channels}", f"{row.in_size}→{row.out_size}"]
        last: list[Child] = [pill(row.verdict, row.winner), _interval(row.judged)]
        for form in row.forms:
            shown = tag("strong", digits(form.ms)) if form.operator == row.winner else digits(form.ms)
            rows.append([*place, _named(form, row), shown, _range(form), *last])
            place, last = ["", "", ""], ["", ""]
    caption = (
        f"{data.conditions}: ms of both forms of every stage, range of the rounds, how many times as fast Fused-MBConv "
        f"is at 95 %; ◆ as published. {squeeze_note(data)}"
    )
    heads = ("", "channels", "map", "form", "ms", "rounds", "faster", "95 %")
    return Figures(heads=heads, rows=rows, caption=caption, words=(0, 3, 6))


def _work(data: StagesData) -> Figures:
    """What each form does, and how much of the device that uses."""
    rows: list[list[Child]] = []
    for row in data.rows:
        index = str(row.index)
        for form in row.forms:
            share, moved = form.roof_share(data.peaks), bool(form.bytes_moved)
            rows.append(
                [
                    index,
                    _named(form, row),
                    count(form.macs),
                    digits(form.bytes_moved / 1e6) if moved else "–",
                    digits_or_dash(form.intensity),
                    digits(form.flops_per_s / 1e12),
                    digits(form.bytes_per_s / 1e9) if moved else "–",
                    "–" if share is None else percent(share),
                    f"{form.latency.n:,}",
                ]
            )
            index = ""
    heads = ("", "form", "MACs", "MB", "FLOP/byte", "TFLOP/s", "GB/s", "of roof", "n")
    caption = f"{data.conditions}: MACs of a picture; MB moved at least by a batch"
    return Figures(heads=heads, rows=rows, caption=caption, words=(0, 1))


def _named(form: FormRow, row: StageRow) -> str:
    return f"{OPERATOR_NAMES[form.operator]}{' ◆' if form.operator == row.paper_operator else ''}"


def _interval(ratio: Ratio | None) -> str:
    """The interval of how many times as fast Fused-MBConv is."""
    return f"{1 / ratio.high:.2f}–{1 / ratio.low:.2f}" if ratio else "–"


def _range(form: FormRow) -> str:
    return f"{digits(form.best_ms)}–{digits(form.worst_ms)}"


def _methods(data: StagesData) -> Figures:
    rows: list[list[Child]] = []
    for row in data.rows:
        index = str(row.index)
        exchange = data.exchanged(row.index)
        for name, ratio in method_ratios(data, row):
            speed = f"{1 / ratio.value:.2f}" if ratio else "–"
            saved = digits(exchange.saved_ms) if exchange and name == "by exchange" else ""
            rows.append([index, name, speed, _interval(ratio), verdict_of(ratio), saved])
            index = ""
    heads = ("stage", "method", "Fused is × as fast", "95 %", "faster", "Fused saves the network, ms")
    return Figures(heads=heads, rows=rows, caption=f"{data.conditions}: three ways of measuring", words=(0, 1, 4))


def _in_place(data: StagesData) -> Figures:
    assert data.in_place
    whole = data.in_place
    rows: list[list[Child]] = []
    parts = [(f"stage {row.index}", whole.operators_ms(row.index)) for row in data.rows]
    parts.insert(0, ("before the stages", {"": whole.beside_ms("before")}))
    parts.append(("after the stages", {"": whole.beside_ms("after")}))
    parts.append(("not attributed", dict(whole.unattributed_ms)))
    for name, operators in parts:
        for operator, ms in operators.items():
            rows.append([name, operator, digits(ms), percent(ms / whole.sum_ms)])
            name = ""
    caption = f"{data.conditions}: layers in place by {PROFILERS[whole.profiler]}; {sum_note(whole)}"
    return Figures(heads=("part", "operator", "ms", "of all layers"), rows=rows, caption=caption, words=(0, 1))


def _map(data: StagesData) -> Figures:
    rows: list[list[Child]] = [
        [
            str(cell.stage),
            str(cell.channels),
            f"{cell.size} px",
            str(cell.batch_size),
            digits(cell.mbconv_ms),
            digits(cell.fused_mbconv_ms),
            verdict_of(cell.ratio),
            _interval(cell.ratio),
        ]
        for cell in data.crossover
    ]
    heads = ("stage", "channels", "map", "batch", "MBConv ms", "Fused ms", "faster", "95 %")
    return Figures(heads=heads, rows=rows, caption=f"{data.conditions}: one block around a stage", words=(6,))


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
        description="The sum of the isolated stages under four ways of choosing, without stem and head.",
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
    own = [_tile(SHORT[row.paper_operator], "", row.paper_operator) for row in stages]
    lines = [tag("tr", tag("th", f"{variant.id} as published"), *own)]
    for run in runs:
        label = run.data.conditions.removeprefix(f"{variant.id} at ")
        head = tag("th", plain_name(run.result.device) if name_devices else "measured", tag("small", label))
        tiles = [_tile(SHORT[row.winner], row.advantage, row.winner) for row in run.data.rows]
        lines.append(tag("tr", head, *tiles))
    heads = tag("tr", tag("td"), *(tag("th", tag("span", "Stage "), str(row.index)) for row in stages))
    style = f"--stages:{len(stages)}"
    return tag("table", tag("thead", heads), tag("tbody", *lines), class_="glance", style=style)


def _tile(word: str, ratio: str, colour: str) -> Markup:
    return tag("td", tag("span", word), tag("small", ratio) if ratio else None, class_=f"tile {colour}")


def headlines(runs: Sequence[MeasuredStages]) -> Iterator[str]:
    """Who wins where in every run, what was wrong with it, then the details of the run that worked hardest."""
    by_work = sorted(runs, key=lambda run: -max(form.gmacs_per_s for row in run.data.rows for form in row.forms))
    for run in by_work:
        engine, data = find_engine(run.data.engine).name, run.data
        of = f" ({data.conditions})" if len(by_work) > 1 else ""
        yield f"In {engine} on {plain_name(run.result.device)}, {_winners(data)} ({data.conditions})."
        yield from _disagreements(data, of)
        yield from _unsettled(run, of)
    data = by_work[0].data
    yield from _details(data, f" ({data.conditions})" if len(by_work) > 1 else "")


def _unsettled(run: MeasuredStages, of: str) -> Iterator[str]:
    """What would settle the stages that are unclear; `of` as in `_disagreements`."""
    schedule = run.result.settings.get("schedule") or {}
    for row in run.data.rows:
        if row.winner != "unclear":
            continue
        if row.judged is None:
            yield f"Stage {row.index} is too little beside what feeds it: a larger --batch-size shows more{of}."
        elif settled := row.judged.settled_by(schedule.get("duration_ms", 1000) / 1000):
            yield f"In stage {row.index} {settled}{of}."


def _winners(data: StagesData) -> str:
    """“Fused-MBConv wins stages 1–3; MBConv wins stages 4–6”: lists inside a list take a semicolon between."""
    said = []
    order: tuple[Winner, ...] = ("fused_mbconv", "mbconv", "even", "unclear")
    for winner in order:
        won = [row.index for row in data.rows if row.winner == winner]
        name = OPERATOR_NAMES.get(winner)
        if len(won) == len(data.rows):
            return f"{name} wins every stage" if name else f"every stage is {winner}"
        if won and name:
            said.append(f"{name} wins {stage_list(won)}")
        elif won:
            said.append(f"{stage_list(won)} {'is' if len(won) == 1 else 'are'} {winner}")
    return "; ".join(said)


def _details(data: StagesData, conditions: str) -> Iterator[str]:
    slower = [row.index for row in data.rows if row.winner in OPERATORS and row.winner != row.paper_operator]
    agreeing = [row.index for row in data.rows if row.winner == row.paper_operator]
    network = "The published network" if data.variant in VARIANTS else "The network's row"
    share = "every stage" if len(agreeing) == len(data.rows) else f"{len(agreeing)} of {len(data.rows)} stages"
    slow = f", the slower one in {stage_list(slower)}" if slower else ""
    yield f"{network} uses the faster form in {share}{slow}{conditions}."
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


def warnings(run: MeasuredStages) -> Iterator[str]:
    """That the machine was not quiet, where it was not."""
    if run.data.warning:
        yield run.data.warning


def timings(run: MeasuredStages) -> Iterator[Timing]:
    """Each form of each stage, the frame taken off."""
    for row in run.data.rows:
        for form in row.forms:
            yield Timing(
                subject=f"stage {row.index} as {OPERATOR_NAMES[form.operator]}",
                setting=run.data.setting,
                p50_ms=form.ms,
                round_p50_ms=form.round_p50_ms,
            )


KIND = Kind(
    name="stages",
    place=10,
    read=StagesData.from_dict,
    section=section,
    headlines=headlines,
    tables=tables,
    glance=glance,
    across=across,
    warnings=warnings,
    timings=timings,
    networks=lambda run: [(run.data.variant, run.data.image_size, 1000)],
)
