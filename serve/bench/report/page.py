"""Owns the page: its frame, how it was measured, the tables of networks; what a result looks like is its kind's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from serve.bench.kind import NetworkAtSize, find_kinds
from serve.bench.report.devices import DeviceRuns, headlines
from zoo import __version__
from zoo.model.counts import Part, parts
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS
from zoo.page.elements import environment_table, plain, render_document, table
from zoo.page.markup import Child, Markup, join, tag
from zoo.results import Result
from zoo.wording import OPERATOR_NAMES, count, joined, percent, plain_name

# Sentences that are read before the figures; more are a wall.
GLANCED = 6
_STYLE = Path(__file__).with_name("report.css")


def render_page(devices: Sequence[DeviceRuns]) -> str:
    """The whole page as text: one HTML file that needs nothing beside it."""
    networks = _known_networks(
        network for device in devices for kind, runs in device.kinds for run in runs for network in kind.networks(run)
    )
    families = {variant.family for variant in VARIANTS}  # what a search drew has a family that is no name
    names = joined(sorted({variant.family for variant, _, _ in networks} & families) or ["Training"])
    title = f"{names} on {plain_name(devices[0].device)}" if len(devices) == 1 else f"{names}, device by device"
    dates = sorted(str(result.environment.get("time", ""))[:10] for runs in devices for result in runs.results)
    tables = [_network_table(*network) for network in networks]
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
    sentences = headlines(runs)  # the first of them is the page's headline
    return tag(
        "section",
        tag("h2", plain_name(runs.device)) if devices > 1 else None,
        *(tag("p", first, class_="headline") for first in sentences[:1]),
        *(part for kind, of_kind in runs.kinds for part in kind.glance(of_kind)),
        *_findings(sentences[1:]),
        *(kind.section(run) for kind, of_kind in runs.kinds for run in of_kind),
        _how(runs),
        class_="device",
    )


def _findings(sentences: Sequence[str]) -> Iterator[Markup]:
    """A few of them at once; of many the others when asked for, and in print."""
    glanced = len(sentences) if len(sentences) <= GLANCED + 1 else GLANCED
    if sentences:
        yield tag("ul", *(tag("li", sentence) for sentence in sentences[:glanced]), class_="headlines")
    if others := sentences[glanced:]:
        listed = tag("ul", *(tag("li", sentence) for sentence in others), class_="headlines")
        yield tag("details", tag("summary", f"{len(others)} more findings"), listed, class_="findings")


def _how(runs: DeviceRuns) -> Markup:
    """How each result was measured, the GPU while it was, and the machine."""
    rows = [(result.kind, result.name, _method(result), _gpu(result)) for result in runs.results]
    return tag(
        "section",
        tag("h3", "How it was measured"),
        table(("", "result", "method", "GPU meanwhile"), rows, words=(0, 1, 2, 3), prose=True),
        *_commands(runs.results),
        tag("h3", "Environment"),
        *map(environment_table, _environments(runs.results)),
    )


def _commands(results: Sequence[Result]) -> Iterator[Markup]:
    """What was typed for each result; files of older versions do not say it."""
    commands = list(dict.fromkeys(filter(None, (result.environment.get("command") for result in results))))
    if commands:
        yield tag("h3", "Commands")
        yield tag("ul", *(tag("li", tag("code", command)) for command in commands), class_="commands")


def _method(result: Result) -> str:
    schedule = result.settings.get("schedule")
    said = [str(result.settings[key]) for key in ("clock", "mode", "input") if key in result.settings]
    if isinstance(schedule, Mapping):
        said.insert(
            0,
            f"{schedule['rounds']} rounds in turn, {schedule['duration_ms'] / 1000:g} s and at least "
            f"{schedule['min_iterations']} iterations in all, after {schedule['warmup_ms']:g} ms of warm-up",
        )
    threads = list(dict.fromkeys(subject.threads for subject in result.subjects if subject.threads))
    if threads or result.settings.get("threads"):
        said.append(f"threads: {plain(threads or result.settings['threads'])}")
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
    """Each different environment once; the time of day and what was typed are no difference."""
    seen: list[dict[str, Any]] = []
    for result in results:
        known = {key: value for key, value in result.environment.items() if key not in ("time", "command")}
        if known not in seen:
            seen.append(known)
    return seen


def _known_networks(measured: Iterable[NetworkAtSize]) -> list[tuple[Variant, int, int]]:
    """Each network at each size and number of classes once, by name and size; an id that no row has is left out.

    An id means the row that was measured under it, which may be a checkpoint's own, else the zoo's.
    """
    measured = list(measured)
    rows = {variant.id: variant for variant in VARIANTS}
    rows |= {network.id: network for network, _, _ in measured if isinstance(network, Variant)}
    found = {
        (rows[network] if isinstance(network, str) else network, image_size, num_classes)
        for network, image_size, num_classes in measured
        if not isinstance(network, str) or network in rows
    }
    return sorted(found, key=lambda one: (one[0].name, *one[1:]))


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
    if part.operator in ("mbconv", "fused_mbconv"):
        kernel += f", expand {part.expand_ratio}"
    meter = tag("span", class_=f"meter {part.operator}", style=f"--share:{share * 100:.2f}%")
    return [
        {"conv": "stem", "head": "head"}.get(part.operator, str(part.index)),
        f"{OPERATOR_NAMES[part.operator]}{kernel}",
        f"{part.in_channels}→{part.out_channels}",
        str(part.num_layers),
        str(part.stride),
        str(part.size),
        count(part.num_params),
        count(part.macs),
        join(meter, " ", percent(share)),
    ]
