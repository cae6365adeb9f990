"""Owns what a report says first: sentences computed from the rows, each with the conditions it holds under."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from serve.bench.measure.stages import OPERATOR_NAMES, Winner, times, total_ms
from serve.bench.report.arms_section import accuracy
from serve.bench.report.measured import (
    ArmsRun,
    DecodingRun,
    DeviceRuns,
    LatencyRun,
    LoaderRun,
    PeersRun,
    StagesRun,
    TrainingRun,
)
from zoo.model.variants import VARIANTS
from zoo.results import UNSTABLE_ABOVE, Summary
from zoo.wording import digits, joined, milliseconds, percent, plain_name, stage_list, tail


def headlines(runs: DeviceRuns) -> list[str]:
    """Every sentence about one device, the most telling first."""
    device = plain_name(runs.device)
    # Several precisions and batches make several verdicts: the run that worked hardest leads, and gets the details.
    by_work = sorted(runs.stages, key=lambda run: -max(form.gmacs_per_s for row in run.rows for form in row.forms))
    sentences = [f"On {device}, {winners(run)} ({run.conditions})." for run in by_work]
    for run in by_work[:1]:
        sentences += _about_stages(run, f" ({run.conditions})" if len(by_work) > 1 else "")
    sentences += [sentence for run in runs.latency for sentence in _about_latency(run)]
    if runs.latency:
        first = runs.latency[0]
        before = milliseconds(first.decode.p50_ms + first.prepare.p50_ms)
        size = f"{first.picture['width_px']} × {first.picture['height_px']}"
        sentences.append(f"Before the network sees it, a {size} JPEG takes {before} to decode and resize.")
    sentences += [sentence for run in runs.training for sentence in _about_training(run)]
    sentences += [_about_arms(run) for run in runs.progressive]
    sentences += [_about_peers(run) for run in runs.peers]
    sentences += [_about_loaders(run) for run in runs.loaders]
    sentences += [_about_decoding(run) for run in runs.decoding]
    unstable = sum(summary.unstable for summary in _summaries(runs))
    if unstable:
        total = sum(1 for _ in _summaries(runs))
        sentences.append(
            f"{unstable} of {total} timings vary by more than {percent(UNSTABLE_ABOVE)} from call to call: trust their "
            "medians, not their last digits."
        )
    return sentences


def winners(run: StagesRun) -> str:
    """Who wins where: “Fused-MBConv wins stages 1–3, MBConv wins stages 4–6”."""
    said = []
    order: tuple[Winner, ...] = ("fused_mbconv", "mbconv", "even")
    for winner in order:
        won = [row.index for row in run.rows if row.winner == winner]
        if len(won) == len(run.rows):
            return "every stage is even" if winner == "even" else f"{OPERATOR_NAMES[winner]} wins every stage"
        if won and winner == "even":
            said.append(f"{stage_list(won)} {'is' if len(won) == 1 else 'are'} even")
        elif won:
            said.append(f"{OPERATOR_NAMES[winner]} wins {stage_list(won)}")
    return joined(said)


def _about_stages(run: StagesRun, conditions: str) -> Iterator[str]:
    agreeing = sum(row.winner in (row.paper_operator, "even") for row in run.rows)
    share = "every stage" if agreeing == len(run.rows) else f"{agreeing} of {len(run.rows)} stages"
    network = "The published network" if run.variant in VARIANTS else "The network's row"
    yield f"{network} uses the faster form, or one as fast, in {share}{conditions}."
    # The project's point in one number: where more arithmetic takes less time.
    telling = [row for row in run.rows if row.winner == "fused_mbconv" and row.fused_mbconv.macs > row.mbconv.macs]
    if telling:
        row = max(telling, key=lambda row: row.fused_mbconv.gmacs_per_s / row.mbconv.gmacs_per_s)
        yield (
            f"In stage {row.index} Fused-MBConv does {times(row.fused_mbconv.macs / row.mbconv.macs)} the "
            f"multiply-adds of MBConv in {percent(1 / row.fused_speedup)} of its time{conditions}."
        )
    total = total_ms(run.rows)
    yield (
        f"All stages together take {milliseconds(total['paper'])} as published, {milliseconds(total['mbconv'])} with "
        f"MBConv only and {milliseconds(total['fused_mbconv'])} with Fused-MBConv only{conditions}."
    )


def _about_latency(run: LatencyRun) -> Iterator[str]:
    for artifact in run.artifacts:
        rows = run.rows_of(artifact.artifact)
        first, best = rows[0], max(rows, key=lambda row: row.pictures_per_second)
        what = "one picture" if first.batch_size == 1 else f"{first.batch_size} pictures"
        yield (
            f"{artifact.artifact} answers {what} in {milliseconds(first.latency.p50_ms)} (p50; {tail(first.latency)}, "
            f"n = {first.latency.n:,}) and reaches {digits(best.pictures_per_second)} pictures/s at batch "
            f"{best.batch_size}."
        )
    for artifact in run.artifacts[1:]:
        compared = [comparison for comparison in run.comparisons if comparison["artifact"] == artifact.artifact]
        said = [f"{_compared(comparison)} at batch {comparison['batch_size']}" for comparison in compared]
        if said:
            yield f"Beside {run.artifacts[0].artifact}, {artifact.artifact} is {joined(said)}."


def _compared(comparison: Mapping[str, Any]) -> str:
    if not comparison["separated"]:
        return "even"
    speedup = comparison["speedup"]
    return f"{times(speedup)} as fast" if speedup > 1 else f"{times(1 / speedup)} as slow"


def _about_training(run: TrainingRun) -> Iterator[str]:
    rows = sorted(run.rows, key=lambda row: row.image_size)
    first, last = rows[0], rows[-1]
    slowest, fastest = digits(last.pictures_per_second), digits(first.pictures_per_second)
    if first is last:
        yield f"Training {run.label} takes in {fastest} pictures/s at {first.image_size} px."
        return
    gain = first.pictures_per_second / last.pictures_per_second
    yield (
        f"Training {run.label} takes in {fastest} pictures/s at {first.image_size} px and {slowest} at "
        f"{last.image_size} px"
        + (f": the first stage of progressive learning runs {times(gain)} as fast as the last." if gain > 1 else ".")
    )


def _about_arms(run: ArmsRun) -> str:
    control = run.arms[-1]
    others = [f"{arm} {accuracy(run.of(arm))} in {percent(run.time_share(arm))}" for arm in run.arms[:-1]]
    return (
        f"Trained the same number of epochs, {run.result.name} reaches {accuracy(run.of(control))} with a {control} "
        f"picture size; {joined(others)} of that time ({len(run.of(control))} seeds each)."
    )


def _about_peers(run: PeersRun) -> str:
    ratios = [row.ratio for row in run.rows]
    slower = sum(row.verdict == "slower" for row in run.rows)
    worst = f"slower than its twin by more than 2 % in {slower}" if slower else "nowhere slower than its twin by 2 %"
    return (
        f"Beside torchvision and timm ({run.result.name}), over {len(ratios)} pairs, a network of the zoo takes "
        f"{percent(min(ratios))} to {percent(max(ratios))} of its twin's time: {worst}."
    )


def _about_loaders(run: LoaderRun) -> str:
    ratios = [row.ratio for row in run.peers]
    for_gpu = [row.ratio_for_gpu for row in run.peers]
    sizes = joined([f"{size} px" for size in sorted({row.image_size for row in run.rows})])
    return (
        f"Reading {run.pictures} for training at {sizes}, the zoo is {times(min(ratios))} to "
        f"{times(max(ratios))} as fast as torchvision's and timm's loaders; {times(min(for_gpu))} to "
        f"{times(max(for_gpu))} where a GPU augments."
    )


def _about_decoding(run: DecodingRun) -> str:
    fastest, slowest = run.decoders[0], run.decoders[-1]
    return (
        f"A whole {run.result.name} JPEG takes {milliseconds(fastest.ms)} to {milliseconds(slowest.ms)} to decode on "
        f"one core: the fastest of {len(run.decoders)} decoders is {fastest.what}, the slowest {slowest.what} "
        f"(n = {fastest.n})."
    )


def _summaries(runs: DeviceRuns) -> Iterator[Summary]:
    for stages in runs.stages:
        yield from (form.latency for row in stages.rows for form in row.forms)
    for latency in runs.latency:
        yield from (row.latency for row in latency.rows)
    for training in runs.training:
        yield from (row.ms_per_step for row in training.rows)
    for peers in runs.peers:
        yield from (summary for row in peers.rows for summary in (row.ours, row.theirs))
