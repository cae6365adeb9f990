"""Owns the parts of the page that show latency and training, and the labels all parts share; it writes no file."""

from __future__ import annotations

from serve.bench.measure.stages import times
from serve.bench.report.measured import LatencyRun, PeersRun, TrainingRun
from zoo.page.charts import Bar, Group, Line, bar_chart, line_chart
from zoo.page.elements import pill, table
from zoo.page.markup import Child, Markup, join, tag
from zoo.results import Summary
from zoo.wording import digits, digits_or_dash, milliseconds, percent

SUMMARY_HEADS = ("p50 ms", "p90 ms", "p99 ms", "variation", "n")
_SERIES = ("series-1", "series-2", "series-3", "series-4")


def summary_cells(summary: Summary) -> list[Child]:
    """p50, p90, p99, spread and n of a measurement, as cells of `SUMMARY_HEADS`."""
    values = (summary.p50_ms, summary.telling_p90_ms, summary.telling_p99_ms)
    figures = [digits_or_dash(value) for value in values]
    return [*figures, variation(summary), f"{summary.n:,}"]


def marks(summary: Summary) -> tuple[tuple[str, float], ...]:
    """p90 and p99 as ticks of a bar, as far as there are samples enough for them."""
    known = (("p90", summary.telling_p90_ms), ("p99", summary.telling_p99_ms))
    return tuple((name, value) for name, value in known if value is not None)


def variation(summary: Summary) -> Markup:
    """The coefficient of variation, marked where trtexec would warn of it."""
    share = f"{summary.coefficient_of_variation * 100:.1f} %"
    return join(pill("unstable", "warning"), " ", share) if summary.unstable else join(share)


def latency_section(run: LatencyRun) -> Markup:
    """Percentiles per artifact and batch size, throughput over batch size, and what comes before the network."""
    title = " and ".join(artifact.artifact for artifact in run.artifacts)
    colours = {artifact.artifact: _SERIES[index % len(_SERIES)] for index, artifact in enumerate(run.artifacts)}
    groups = [
        Group(
            heading=artifact.artifact,
            detail=f"{artifact.backend} · {artifact.image_size} px",
            bars=[
                Bar(
                    label=f"batch {row.batch_size}",
                    value=row.latency.p50_ms,
                    text=milliseconds(row.latency.p50_ms),
                    colour=colours[artifact.artifact],
                    spoken=_spoken(artifact.artifact, row.batch_size, row.latency),
                    marks=marks(row.latency),
                )
                for row in run.rows_of(artifact.artifact)
            ],
        )
        for artifact in run.artifacts
    ]
    bars = bar_chart(
        groups,
        title="Latency",
        description="Bars end at p50; the ticks are p90 and, from 100 samples on, p99. One batch in flight, copies "
        "included.",
        axis="ms",
        legend=[("mark-key p90", "p90"), ("mark-key p99", "p99")],
    )
    return tag(
        "section",
        tag("h3", f"Latency of {title}"),
        bars,
        _latency_table(run),
        _throughput(run, colours),
        _before_the_network(run),
    )


def training_section(run: TrainingRun) -> Markup:
    """Training throughput at each stage's image size."""
    rows = sorted(run.rows, key=lambda row: row.image_size)
    bars = [
        Bar(
            label=f"{row.image_size} px",
            value=row.pictures_per_second,
            text=f"{digits(row.pictures_per_second)}/s",
            colour="series-1",
            spoken=f"{row.image_size} px, batch {row.batch_size}: {digits(row.pictures_per_second)} pictures/s",
        )
        for row in rows
    ]
    cells = [
        (f"{row.image_size} px", str(row.batch_size), digits(row.pictures_per_second), *summary_cells(row.ms_per_step))
        for row in rows
    ]
    figures = table(
        ("image size", "batch", "pictures/s", *SUMMARY_HEADS), cells, caption="Milliseconds are of one step"
    )
    chart = bar_chart(
        [Group(heading=run.label, bars=bars)],
        title="Training throughput",
        description="Pictures per second at the image size of each progressive stage.",
        axis="/s",
    )
    return tag("section", tag("h3", f"Training {run.label}"), chart, figures)


PASSES = {"forward": "forward", "step": "forward and backward"}
_VERDICTS = {"faster": ("faster", "good"), "even": ("even", "even"), "slower": ("slower", "warning")}


def peers_section(run: PeersRun) -> Markup:
    """Ours beside the same networks of other projects: one group a network and pass, one bar a project."""
    keys = dict.fromkeys((row.network, row.image_size, row.batch_size, row.mode) for row in run.rows)
    groups = []
    for network, image_size, batch_size, mode in keys:
        bars = []
        for row in run.rows:
            if (row.network, row.image_size, row.batch_size, row.mode) != (network, image_size, batch_size, mode):
                continue
            for name, summary, colour in (("zoo", row.ours, "series-1"), (row.peer, row.theirs, "series-4")):
                text = milliseconds(summary.p50_ms)
                spoken = f"{network} {mode}, {name} beside {row.peer}: {text}, n {summary.n}"
                bars.append(Bar(label=name, value=summary.p50_ms, text=text, colour=colour, spoken=spoken))
        detail = f"{image_size} px, batch {batch_size}"
        groups.append(Group(heading=f"{network}, {PASSES.get(mode, mode)}", detail=detail, bars=bars))
    cells: list[list[Child]] = [
        [
            row.network,
            row.peer_name,
            row.peer,
            PASSES.get(row.mode, row.mode),
            f"{row.image_size} px",
            str(row.batch_size),
            digits(row.ours.p50_ms),
            digits(row.theirs.p50_ms),
            percent(row.ratio),
            pill(*_VERDICTS[row.verdict]),
            f"{row.ours.n} + {row.theirs.n}",
        ]
        for row in run.rows
    ]
    heads = ("network", "there", "of", "pass", "size", "batch", "ours ms", "theirs ms", "ours / theirs", "", "n")
    figures = table(
        heads,
        cells,
        caption="Medians; the ratio is taken round by round, as a pair was timed in turn",
        words=(0, 1, 2, 3, 9),
    )
    chart = bar_chart(
        groups,
        title="The same network, written by others",
        description="Milliseconds per batch, median: the same weights, pictures, layout and device, call by call. The "
        "kernels are the same; what ours saves is memory: residual sums are written in place, and without gradients "
        "the product of squeeze-and-excitation.",
        axis="ms",
        legend=[("series-1", "zoo"), ("series-4", "the other project")],
    )
    return tag("section", tag("h3", f"Beside torchvision and timm, {run.result.name}"), chart, figures)


def _spoken(name: str, batch_size: int, latency: Summary) -> str:
    figures = [f"{key} {milliseconds(value)}" for key, value in (("p50", latency.p50_ms), *marks(latency))]
    return f"{name}, batch {batch_size}: {', '.join(figures)}, n {latency.n}"


def _latency_table(run: LatencyRun) -> Markup:
    speedups = {(one["artifact"], one["batch_size"]): one for one in run.comparisons}
    listed = [row for artifact in run.artifacts for row in run.rows_of(artifact.artifact)]
    rows: list[list[Child]] = []
    for row in listed:
        one = speedups.get((row.artifact, row.batch_size))
        ratio = (times(one["speedup"]) if one["separated"] else "even") if one else "1×"
        cells = [row.artifact, str(row.batch_size), *summary_cells(row.latency), digits(row.pictures_per_second)]
        rows.append([*cells, ratio] if speedups else cells)
    heads = ["artifact", "batch", *SUMMARY_HEADS, "pictures/s", *(["speed"] if speedups else [])]
    few = any(row.latency.telling_p99_ms is None for row in listed)
    caption = "Milliseconds per batch" + ("; a p99 needs 100 samples, a p90 10" if few else "")
    return table(heads, rows, caption=caption)


def _throughput(run: LatencyRun, colours: dict[str, str]) -> Markup | None:
    lines = [
        Line(
            label=artifact.artifact,
            colour=colours[artifact.artifact],
            points=[(f"batch {row.batch_size}", row.pictures_per_second) for row in run.rows_of(artifact.artifact)],
        )
        for artifact in run.artifacts
    ]
    if len(lines[0].points) < 2:
        return None  # one point is no curve; the table above has it
    return line_chart(
        lines, title="Throughput", description="One caller, one batch after the other.", axis="pictures/s"
    )


def _before_the_network(run: LatencyRun) -> Markup:
    first = run.artifacts[0]
    network = run.rows_of(first.artifact)[0]
    steps = (
        ("decode", run.decode, "series-4"),
        ("resize", run.prepare, "series-3"),
        (f"network, batch {network.batch_size}", network.latency, "series-1"),
    )
    bars = [
        Bar(
            label=name,
            value=summary.p50_ms,
            text=milliseconds(summary.p50_ms),
            colour=colour,
            spoken=f"{name}: {milliseconds(summary.p50_ms)}, n {summary.n}",
            marks=marks(summary),
        )
        for name, summary, colour in steps
    ]
    size = f"{run.picture['width_px']} × {run.picture['height_px']}"
    return bar_chart(
        [Group(heading=f"One {size} JPEG", detail=f"to {first.image_size} px, then {first.artifact}", bars=bars)],
        title="Where the time goes",
        description="Decoding and resizing on the processor, one thread, before the network sees the picture.",
        axis="ms",
    )
