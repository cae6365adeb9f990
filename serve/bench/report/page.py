"""Owns the page: its frame, what it says first, how it was measured; what a kind of result looks like is the kind's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from serve.bench.kind import find_kinds
from serve.bench.report.devices import DeviceRuns, headlines
from serve.bench.report.networks import known_networks, network_table
from zoo import __version__
from zoo.page.elements import environment_table, plain, render_document, table
from zoo.page.markup import Markup, tag
from zoo.results import Result
from zoo.wording import joined, plain_name

_STYLE = Path(__file__).with_name("report.css")


def render_page(devices: Sequence[DeviceRuns]) -> str:
    """The whole page as text: one HTML file that needs nothing beside it."""
    networks = known_networks(
        network for device in devices for kind, runs in device.kinds for run in runs for network in kind.networks(run)
    )
    names = joined(sorted({variant.family for variant, _, _ in networks}) or ["Training"])
    title = f"{names} on {plain_name(devices[0].device)}" if len(devices) == 1 else f"{names}, device by device"
    dates = sorted(str(result.environment.get("time", ""))[:10] for runs in devices for result in runs.results)
    tables = [network_table(*network) for network in networks]
    return render_document(
        kicker="zoo benchmark report",
        title=title,
        subtitle=dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}",
        main=[
            *_across(devices),
            *(_device_section(runs, len(devices)) for runs in devices),
            tag("section", tag("h2", "The network, stage by stage"), *tables) if tables else None,
        ],
        footer=f"Made by `zoo bench report` {__version__}. Every figure is also in the JSON beside this page.",
        style=_STYLE,
    )


def _across(devices: Sequence[DeviceRuns]) -> Iterator[Markup]:
    """What a kind shows of several devices side by side."""
    for kind in find_kinds().values():
        of_devices = [runs for device in devices if (runs := device.of(kind.name))]
        if len(of_devices) > 1 and (shown := list(kind.across([run for runs in of_devices for run in runs]))):
            yield tag("section", *shown)


def _device_section(runs: DeviceRuns, devices: int) -> Markup:
    first, *others = headlines(runs)
    return tag(
        "section",
        tag("h2", plain_name(runs.device)) if devices > 1 else None,
        tag("p", first, class_="headline"),
        *(part for kind, of_kind in runs.kinds for part in kind.glance(of_kind)),
        tag("ul", *(tag("li", sentence) for sentence in others), class_="headlines") if others else None,
        *(kind.section(run) for kind, of_kind in runs.kinds for run in of_kind),
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
        said.append(f"threads: {plain(result.settings['threads'])}")
    if not said:
        said = [f"{key.replace('_', ' ')} {value}" for key, value in result.settings.items() if key != "subjects"]
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
