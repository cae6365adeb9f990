"""Owns results of searches replayed on a table of trained networks; `benchmarks/search.py` trains them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean, stdev

from serve.bench.kind import Kind, Measured, NetworkAtSize
from serve.bench.measure.replay import (
    Effect,
    Match,
    Standing,
    curve,
    matches,
    operator_effects,
    rank_agreement,
    standing,
)
from serve.bench.measure.search_rows import CHANCE, SearchData
from zoo.page.curves import Band, Curve, curve_chart
from zoo.page.figures import SERIES, Figures, to_page
from zoo.page.markup import Child, Markup, tag
from zoo.page.scatter import Point, scatter_chart
from zoo.wording import count, joined

MeasuredSearch = Measured[SearchData]
# After how many trials a search is looked at, and from how many on a headline speaks of it.
LOOKED_AT = (10, 20, 30, 60)
# Wins of ten that a search is asked for.
ASKED_SHARE = 0.8


def section(run: MeasuredSearch) -> Markup:
    """The table as points, searches over trials, and the figures."""
    data = run.data
    return tag(
        "section",
        tag("h3", f"Search in the space {data.space.id} on {data.data}: {len(data.networks)} trained networks"),
        _points(data),
        _over_trials(data) if data.replays else None,
        *to_page(figures(run)),
        tag("p", _how(data), class_="note"),
    )


def _how(data: SearchData) -> str:
    weights = data.space.reward
    return (
        f"Reward: top-1 · step^{weights.step_time:g} · parameters^{weights.params:g}; step is the time of a training "
        f"step as a share of {data.reference}'s. Trained {data.short_epochs} epochs on {data.train_pictures:,} "
        f"pictures, judged on {data.val_pictures:,}; long is {data.long_epochs} epochs with other seeds. A search "
        "asks, and the table answers: for a network that is not in it the nearest one that is."
    )


def _points(data: SearchData) -> Markup:
    published = {one.code: one.model for one in data.published}
    points = [
        Point(
            label=published.get(row.code, ""),
            colour="series-1" if row.code in published else "series-2",
            x=row.step.value,
            y=100 * row.top1,
            spoken=f"{published.get(row.code, row.code)}: {100 * row.top1:.1f} %, step {row.step.value:.2f}, "
            f"{count(row.num_params)} parameters",
        )
        for row in data.networks
    ]
    return scatter_chart(
        points,
        title="Accuracy over the time of a training step",
        description=f"Every network of the table after {data.short_epochs} epochs",
        x_name=f"step, × {data.reference}",
        y_name="top-1, %",
        legend=[("series-1", "published tables, cut to the space"), ("series-2", "drawn")],
    )


def _over_trials(data: SearchData) -> Markup:
    curves = []
    for sampler, colour in zip(data.samplers, SERIES, strict=False):
        values = curve(data, sampler)
        points = [(float(trial), 100 * value) for trial, value in enumerate(values, start=1)]
        curves.append(Curve(label=sampler, colour=colour, points=points, shown=f"{points[-1][1]:.1f} %"))
    end = max(x for one in curves for x, _ in one.points)
    return curve_chart(
        curves,
        [Band(start=1.0, end=end)],
        title="The best reward so far",
        description="Median of the repetitions, as a share of the best reward of the table",
        unit="%",
        x_name="trial",
    ).as_figure()


def figures(run: MeasuredSearch) -> list[Figures]:
    """Samplers beside chance, finalists beside published tables, operators, and the best networks of the table."""
    data = run.data
    return [each for each in (_samplers(data), _finalists(data), _operators(data), _best(data)) if each.rows]


def _samplers(data: SearchData) -> Figures:
    rows: list[list[Child]] = []
    for one in standings(data):
        wins = f"{one.wins} – {one.ties} – {one.losses}" if one.sampler != CHANCE else "–"
        rows.append(
            [
                one.sampler,
                str(one.trials),
                f"{100 * one.best:.1f} ({100 * one.low:.1f} – {100 * one.high:.1f})",
                wins,
                f"{100 * one.gain:+.1f}" if one.sampler != CHANCE else "–",
                f"{100 * one.over_median:+.1f}",
                f"{one.found} of {one.repetitions}",
            ]
        )
    return Figures(
        heads=(
            "sampler",
            "trials",
            "best, % of the table's best",
            "won – tied – lost",
            "over chance, %",
            "over the median network, %",
            "found the best",
        ),
        rows=rows,
        caption="Searches replayed on the table, with the 95 % interval of the median; won and lost against chance "
        "with as many trials, repetition by repetition",
    )


def standings(data: SearchData) -> list[Standing]:
    """Every sampler after every number of trials that its repetitions reach, chance first."""
    reach = min((len(replay.order) for replay in data.replays), default=0)
    samplers = sorted(data.samplers, key=lambda sampler: sampler != CHANCE)
    return [standing(data, sampler, trials) for trials in LOOKED_AT if trials <= reach for sampler in samplers]


def _finalists(data: SearchData) -> Figures:
    rows: list[list[Child]] = []
    for match in matches(data):
        rows.append(
            [
                f"{match.model}: {match.published.code}",
                match.finalist.code,
                f"{match.published.step.value:.2f} / {match.finalist.step.value:.2f}",
                f"{count(match.published.num_params)} / {count(match.finalist.num_params)}",
                f"{_mean(match.published_top1)} / {_mean(match.finalist_top1)}",
                f"{match.difference:+.1f} ({match.low:+.1f} – {match.high:+.1f})",
                match.verdict,
                str(len(match.finalist_top1)),
            ]
        )
    return Figures(
        heads=("published", "finalist", "step", "params", "top-1, %", "difference", "finalist is", "seeds"),
        rows=rows,
        caption=f"Trained long, {data.long_epochs} epochs: the best reward of the table whose step takes no longer "
        "than a published network's; percentage points with their 95 % interval",
        words=(0, 1, 6),
    )


def _mean(values: Sequence[float]) -> str:
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * fmean(values):.1f}{spread}"


def _operators(data: SearchData) -> Figures:
    effects = _effects(data)
    of_stage: dict[int, dict[str, Effect]] = {}
    for effect in effects:
        of_stage.setdefault(effect.stage, {})[effect.of] = effect
    rows: list[list[Child]] = [
        [str(stage), *(f"{_effect(each)} · {each.verdict}" for each in by_figure.values())]
        for stage, by_figure in of_stage.items()
    ]
    return Figures(
        heads=("stage", "top-1, points", "training step, %", "reward, %"),
        rows=rows,
        caption="MBConv instead of Fused-MBConv, all other choices equal, with the 95 % interval; then who is ahead",
        words=(0, 1, 2, 3),
    )


def _effects(data: SearchData) -> list[Effect]:
    """None where the table is too small for any."""
    factors = 4 * len(data.space.stages) + 1
    return operator_effects(data) if len(data.networks) > 2 * factors else []


def _effect(effect: Effect) -> str:
    return f"{effect.value:+.1f} ({effect.low:+.1f} – {effect.high:+.1f})"


def _best(data: SearchData, most: int = 10) -> Figures:
    published = {one.code: one.model for one in data.published}
    ranked = sorted(zip(data.rewards, data.networks, strict=True), key=lambda one: -one[0])
    rows: list[list[Child]] = []
    for place, (reward, row) in enumerate(ranked, start=1):
        if place <= most or row.code in published:
            name = f"{row.code} ({published[row.code]})" if row.code in published else row.code
            long = data.long_top1(row.code)
            rows.append(
                [
                    str(place),
                    name,
                    f"{100 * reward / ranked[0][0]:.1f}",
                    f"{100 * row.top1:.1f}",
                    _mean(long) if long else "–",
                    f"{row.step.value:.2f} ({row.step.low:.2f} – {row.step.high:.2f})",
                    count(row.num_params),
                    count(row.macs),
                ]
            )
    return Figures(
        heads=("", "network", "reward, % of the best", "top-1, %", "trained long, %", "step", "params", "MACs"),
        rows=rows,
        caption=f"The best {most} of {len(data.networks)} networks by reward, and the published ones",
        words=(1,),
    )


def headlines(runs: Sequence[MeasuredSearch]) -> Iterator[str]:
    """Whether searching beats chance, whether what it finds beats a published table, and what pays where."""
    for run in runs:
        data = run.data
        where = f"In a space of {data.space.size} networks on {data.data}, {len(data.networks)} of them trained,"
        looked = [one for one in standings(data) if one.sampler != CHANCE]
        if not looked:
            yield f"{where} no search has been replayed yet."
        for one in looked:
            if one.trials == max(other.trials for other in looked):
                yield f"{where} {_said_of(one)}"
        agreement = rank_agreement(data)
        if agreement.accuracy is not None:
            yield (
                f"Accuracy on {data.data} after {data.short_epochs} epochs ranks networks as accuracy after "
                f"{data.long_epochs} does "
                f"with a rank correlation of {agreement.accuracy:.2f} (n = {agreement.n})."
            )
        yield from (_said_of_match(match, data.data) for match in matches(data))
        yield from _said_of_operators(_effects(data), data.data)


def _said_of(one: Standing) -> str:
    low, high = one.won
    enough = one.wins >= ASKED_SHARE * one.repetitions
    verdict = "beats" if enough else "does not beat" if one.losses >= one.wins else "is more often ahead of than behind"
    return (
        f"{one.sampler} {verdict} the best of {one.trials} random networks: {one.wins} won, {one.ties} tied, "
        f"{one.losses} lost of {one.repetitions} (share won {100 * low:.0f} – {100 * high:.0f} %), the median reward "
        f"{100 * one.gain:+.1f} %; over the median network {100 * one.over_median:+.1f} %."
    )


def _said_of_match(match: Match, pictures: str) -> str:
    words = {"better": "is better", "worse": "is worse"}.get(match.verdict, "shows no difference")
    return (
        f"At the step time of {match.model}'s table the finalist on {pictures}, trained long, {words}: "
        f"{_mean(match.finalist_top1)} % beside {_mean(match.published_top1)} %, {match.difference:+.1f} points "
        f"({match.low:+.1f} – {match.high:+.1f}; {len(match.finalist_top1)} seeds)."
    )


def _said_of_operators(effects: Sequence[Effect], pictures: str) -> Iterator[str]:
    words = {"top1": "in accuracy", "step": "in the time of a training step", "reward": "in reward"}
    for figure, said in words.items():
        verdicts: dict[str, list[str]] = {}
        for effect in effects:
            if effect.of == figure:
                verdicts.setdefault(effect.verdict, []).append(str(effect.stage))
        if verdicts:
            told = [
                f"{who} in stage{'s' if len(stages) > 1 else ''} {joined(stages)}" for who, stages in verdicts.items()
            ]
            yield f"Ahead {said} on {pictures}, all else equal: {joined(told)}."


def networks(run: MeasuredSearch) -> Iterator[NetworkAtSize]:
    """The published tables as the space has them."""
    data = run.data
    for one in data.published:
        row = data.by_code.get(one.code)
        if row:
            yield data.space.variant(row.candidate), data.space.image_size, 1000


KIND = Kind(
    name="search",
    place=42,
    read=SearchData.from_dict,
    section=section,
    headlines=headlines,
    tables=figures,
    networks=networks,
)
