"""Owns the page: its frame, what it says first, the network's table, how it was measured; it draws no chart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from serve.bench.measure.stages import OPERATOR_NAMES
from serve.bench.report.arms_section import arms_section
from serve.bench.report.decoding_section import decoding_section
from serve.bench.report.headlines import headlines
from serve.bench.report.loader_section import loader_section
from serve.bench.report.measured import DeviceRuns, StagesRun
from serve.bench.report.sections import latency_section, peers_section, training_section
from serve.bench.report.stage_section import glance, stages_section
from zoo import __version__
from zoo.model.counts import Part, parts
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS
from zoo.page.elements import environment_table, render_document, table
from zoo.page.markup import Child, Markup, join, tag
from zoo.results import Result
from zoo.wording import count, joined, percent, plain_name

_STYLE = Path(__file__).with_name("report.css")
_OPERATORS = OPERATOR_NAMES | {"conv": "Conv", "bottleneck": "Bottleneck", "head": "Conv 1×1, pool, classifier"}


def render_page(devices: Sequence[DeviceRuns]) -> str:
    """The whole page as text: one HTML file that needs nothing beside it."""
    networks = joined(sorted({variant.family for variant, _, _ in _measured_networks(devices)}) or ["Training"])
    title = f"{networks} on {plain_name(devices[0].device)}" if len(devices) == 1 else f"{networks}, device by device"
    dates = sorted(str(result.environment.get("time", ""))[:10] for runs in devices for result in runs.results)
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    return render_document(
        kicker="zoo benchmark report",
        title=title,
        subtitle=when,
        main=[_across(devices), *(_device_section(runs, len(devices)) for runs in devices), _networks(devices)],
        footer=f"Made by `zoo bench report` {__version__}. Every figure is also in the JSON beside this page.",
        style=_STYLE,
    )


def _across(devices: Sequence[DeviceRuns]) -> Markup | None:
    """The same network on several devices, side by side."""
    runs = [run for device in devices for run in device.stages]
    if len({run.result.device for run in runs}) < 2:
        return None
    tables = [glance(of_one, name_devices=True) for of_one in _by_network(runs)]
    return tag("section", tag("h2", "Who wins where, device by device"), *tables)


def _by_network(runs: Sequence[StagesRun]) -> list[list[StagesRun]]:
    """Runs of the same row, in order; a checkpoint's row may differ from the table's of the same name."""
    networks: dict[Variant, list[StagesRun]] = {}
    for run in runs:
        networks.setdefault(run.variant, []).append(run)
    return list(networks.values())


def _device_section(runs: DeviceRuns, devices: int) -> Markup:
    first, *others = headlines(runs)
    return tag(
        "section",
        tag("h2", plain_name(runs.device)) if devices > 1 else None,
        tag("p", first, class_="headline"),
        *(glance(of_one) for of_one in _by_network(runs.stages)),
        tag("ul", *(tag("li", sentence) for sentence in others), class_="headlines") if others else None,
        *(stages_section(run) for run in runs.stages),
        *(latency_section(run) for run in runs.latency),
        *(training_section(run) for run in runs.training),
        *(arms_section(run) for run in runs.progressive),
        *(peers_section(run) for run in runs.peers),
        *(loader_section(run) for run in runs.loaders),
        *(decoding_section(run) for run in runs.decoding),
        _how(runs),
        class_="device",
    )


def _how(runs: DeviceRuns) -> Markup:
    """How each result was measured, the GPU while it was, and the machine."""
    rows = [(result.kind, result.name, _method(result), _gpu(result)) for result in runs.results]
    return tag(
        "section",
        tag("h3", "How it was measured"),
        table(("", "result", "method", "GPU meanwhile"), rows, words=(0, 1, 2, 3), prose=True),
        tag("h3", "Environment"),
        *map(environment_table, _environments(runs.results)),
    )


def _method(result: Result) -> str:
    schedule = result.settings.get("schedule")
    said = [str(result.settings[key]) for key in ("clock", "mode", "input") if key in result.settings]
    if isinstance(schedule, Mapping):
        said.insert(
            0,
            f"{schedule['rounds']} rounds in turn, {schedule['duration_ms'] / 1000:g} s and at least "
            f"{schedule['min_iterations']} iterations in all, after {schedule['warmup_ms']:g} ms of warm-up",
        )
    if result.settings.get("threads"):
        said.append(f"threads: {result.settings['threads']}")
    if not said:
        said = [f"{key.replace('_', ' ')} {value}" for key, value in result.settings.items()]
    return "; ".join(said)


def _gpu(result: Result) -> str:
    trace = result.data.get("gpu")
    if not isinstance(trace, Mapping):
        return str(result.data.get("gpu_reason") or "not sampled")
    units = {"sm_clock_mhz": "SM MHz", "memory_clock_mhz": "memory MHz", "power_w": "W", "temperature_c": "°C"}
    said = [f"{trace[key]['min']:.0f}–{trace[key]['max']:.0f} {unit}" for key, unit in units.items() if key in trace]
    reasons = trace.get("throttle_reasons") or []
    said.append(f"throttled: {', '.join(reasons)}" if reasons else "not throttled")
    return f"{', '.join(said)} (n = {trace['n']})"


def _environments(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Each different environment once; the time of day is not a difference."""
    seen: list[dict[str, Any]] = []
    for result in results:
        known = {key: value for key, value in result.environment.items() if key != "time"}
        if known not in seen:
            seen.append(known)
    return seen


def _networks(devices: Sequence[DeviceRuns]) -> Markup | None:
    """Every network that was measured, stage by stage, at the size and with the classes it was measured with."""
    tables = [_network_table(*wanted) for wanted in dict.fromkeys(_measured_networks(devices))]
    return tag("section", tag("h2", "The network, stage by stage"), *tables) if tables else None


def _measured_networks(devices: Sequence[DeviceRuns]) -> Iterator[tuple[Variant, int, int]]:
    known = {variant.id: variant for variant in VARIANTS}
    for runs in devices:
        known |= {run.variant.id: run.variant for run in runs.stages}
        for run in runs.latency:
            for artifact in run.artifacts:
                if artifact.model in known:
                    yield known[artifact.model], artifact.image_size, artifact.num_classes
        yield from ((run.variant, run.image_size, 1000) for run in runs.stages)


def _network_table(variant: Variant, image_size: int, num_classes: int) -> Markup:
    listed = list(parts(variant, image_size=image_size, num_classes=num_classes))
    macs, params = sum(part.macs for part in listed), sum(part.num_params for part in listed)
    rows = [_part_cells(part, macs) for part in listed]
    rows.append(["", tag("strong", "total"), "", "", "", "", count(params), count(macs), ""])
    heads = ("", "operator", "channels", "blocks", "stride", "output px", "params", "MACs", "share of MACs")
    caption = f"{variant.name} at {image_size} px with {num_classes:,} classes"
    return table(heads, rows, caption=caption, words=(0, 1, 8))


def _part_cells(part: Part, macs: int) -> list[Child]:
    share = part.macs / macs
    kernel = "" if part.operator == "head" else f" {part.kernel_size}×{part.kernel_size}"
    if part.operator in OPERATOR_NAMES:
        kernel += f", expand {part.expand_ratio}"
    meter = tag("span", class_=f"meter {part.operator}", style=f"--share:{share * 100:.2f}%")
    return [
        {"conv": "stem", "head": "head"}.get(part.operator, str(part.index)),
        f"{_OPERATORS[part.operator]}{kernel}",
        f"{part.in_channels}→{part.out_channels}",
        str(part.num_layers),
        str(part.stride),
        str(part.size),
        count(part.num_params),
        count(part.macs),
        join(meter, " ", percent(share)),
    ]
