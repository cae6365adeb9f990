"""Owns the page of a search: the front, the finalists, every trial, and how far to trust them; it trains nothing."""

from __future__ import annotations

from collections.abc import Sequence

from train.search.finalists import Finalist
from train.search.result import ScoredTrial, SearchResult
from train.search.rows import Agreement, Scored
from zoo import __version__
from zoo.page.charts import Bar, Group, bar_chart
from zoo.page.elements import environment_table, pill, render_document, table
from zoo.page.markup import Child, Markup, tag
from zoo.page.scatter import Point, scatter_chart
from zoo.wording import OPERATOR_NAMES, count, digits, duration, joined, milliseconds, percent, plain_name

PILLS = {"finished": "good", "stopped early": "warning", "failed": "warning", "running": "good"}
# What an exponent is called in the formula.
SIGNS = (("step_time", "S"), ("params", "P"), ("latency", "L"))


def render_search(result: SearchResult) -> str:
    """The page as text: one HTML file that needs no other."""
    first, *others = headlines(result)
    return render_document(
        kicker="zoo search",
        title=f"{result.space.id} on {result.data}",
        subtitle=f"{result.epochs} epochs at {result.image_size} px, {plain_name(result.device)}, "
        f"{result.environment['time'][:16].replace('T', ' ')} UTC",
        main=[
            tag("p", first, class_="headline"),
            tag("ul", *(tag("li", sentence) for sentence in others), class_="headlines"),
            *_front(result),
            _winner_section(result),
            _finalists_section(result),
            _operators_section(result),
            _trials_section(result),
            _how_section(result),
            tag("section", tag("h2", "Where it comes from"), environment_table(result.environment)),
        ],
        footer=f"Made by `zoo search` {__version__}. search.json beside this page has its figures, winner.toml the row "
        "of the network.",
    )


def headlines(result: SearchResult) -> list[str]:
    """What a search says of itself, the winner first."""
    said = [result.summary[0].upper() + result.summary[1:] + "."] if result.winner is None else [_winner(result)]
    finished, trials = len(result.finished), len(result.trials)
    said.append(
        f"{trials} of the space's {result.space_size:,} networks were tried, by {_SAMPLERS[result.sampler]}; "
        f"{finished} were trained to the end of their trial."
    )
    said += [sentence for sentence in (_against_references(result), _trust(result.accuracy_agreement)) if sentence]
    if result.winner and not result.winner.confirmed:
        said.append(
            "No network was trained for longer: one short training with one seed has chosen the winner, and the best "
            "of many is partly the luckiest."
        )
    if result.disturbed:
        said.append(
            f"The machine was not quiet while {result.disturbed} of {trials} step times were measured; they are ratios "
            "to the reference's steps, which were taken in turn, and their intervals are wider for it."
        )
    return [sentence.replace(" %", "\N{NO-BREAK SPACE}%") for sentence in said]


_SAMPLERS = {"random": "chance", "tpe": "TPE", "nsga2": "NSGA-II"}


def _winner(result: SearchResult) -> str:
    winner = result.winner
    assert winner is not None, "there is one"
    said = f"{winner.code} wins with a reward of {digits(winner.reward.value)} and {percent(winner.top1)} top-1"
    if winner.margin is None:
        return f"{said}."
    how = "clear of" if winner.clear else "not clear of"
    return f"{said}, {percent(winner.margin)} above the second and {how} its interval."


def _against_references(result: SearchResult) -> str:
    """The winner beside the published tables, by the same trainings."""
    winner = result.winner
    others = [one for one in result.finalists if one.names and winner and one.code != winner.code]
    if not winner or not winner.confirmed or not others:
        return ""
    told = (
        f"{joined(one.names)}'s table has a reward of {digits(one.reward.value)} and {percent(one.top1)} top-1"
        for one in others
    )
    return f"Trained alike, in this space: {'; '.join(told)}."


def _trust(found: Agreement | None) -> str:
    """What the rank correlation means."""
    if found is None:
        return ""
    agreeing = (found.kendall + 1) / 2
    chance = "" if found.p < 0.05 else ", which chance alone would often do"
    return (
        f"Of the pairs of networks that were trained for longer, the short training had {percent(agreeing)} in the "
        f"same order "
        f"(Kendall's τ {found.kendall:.2f}, Spearman's ρ {found.spearman:.2f}, n = {found.n}, "
        f"p = {found.p:.2g}{chance}). These are the best of all trials and the published tables, and so are harder to "
        "tell apart than any two."
    )


def _front(result: SearchResult) -> list[Markup]:
    """Accuracy over step time and over parameters, with the networks that no other beats in both."""
    finished = result.finished
    if not finished:
        return []
    step = [(one, one.trial.costs.step.ratio) for one in finished if one.trial.costs]
    params = [(one, one.trial.costs.num_params / 1e6) for one in finished if one.trial.costs]
    return [
        _scatter(step, result, title="Accuracy over step time", x_name="training step, times the reference's"),
        _scatter(params, result, title="Accuracy over parameters", x_name="parameters, millions"),
    ]


def _scatter(points: Sequence[tuple[ScoredTrial, float]], result: SearchResult, *, title: str, x_name: str) -> Markup:
    """Trials as points; the line is the front of these two figures alone."""
    on_line, best = set[int](), -1.0
    for one, _ in sorted(points, key=lambda pair: (pair[1], -_top1(pair[0]))):
        if _top1(one) > best:
            best = _top1(one)
            on_line.add(one.trial.number)
    winner = result.winner.code if result.winner else ""
    drawn = [_point(one, x, one.trial.number in on_line, is_winner=one.trial.code == winner) for one, x in points]
    # What is labelled first keeps its label, and what is drawn last lies on top.
    drawn.sort(key=lambda point: point.colour == "grey")
    return scatter_chart(
        drawn,
        title=title,
        description=f"Short trainings of {result.epochs} epochs; the line joins what no other beats in both.",
        x_name=x_name,
        y_name="top-1, %",
        legend=[("orange", "winner"), ("series-2", "published tables"), ("blue", "on the front"), ("grey", "others")],
    )


def _point(one: ScoredTrial, x: float, on_line: bool, *, is_winner: bool) -> Point:
    trial = one.trial
    colour = "orange" if is_winner else "series-2" if one.names else "blue" if on_line else "grey"
    name = joined(one.names) if one.names else "winner" if is_winner else ""
    reward = f", reward {digits(one.reward.value)}" if one.reward else ""
    return Point(
        label=name,
        colour=colour,
        x=x,
        y=100 * _top1(one),
        spoken=f"{trial.code}{f' ({name})' if name else ''}: {percent(_top1(one))} top-1 at {digits(x)}{reward}",
        on_line=on_line,
    )


def _top1(one: ScoredTrial) -> float:
    return one.trial.trained.top1 if one.trial.trained else 0.0


def _winner_section(result: SearchResult) -> Markup | None:
    """The winner's stages, as the paper's Table 4 has them."""
    if result.winner is None:
        return None
    rows: list[list[Child]] = [["0", "Conv", "3", "2", "", str(result.space.stem_channels), "1"]]
    for place, stage in enumerate(result.winner.candidate.stages, start=1):
        if stage is None:
            rows.append([str(place), "gone", "", "", "", "", ""])
            continue
        name = OPERATOR_NAMES[stage.operator] + (f", SE {stage.se_ratio:g}" if stage.se_ratio else "")
        figures = (stage.kernel_size, stage.stride, stage.expand_ratio, stage.out_channels, stage.num_layers)
        rows.append([str(place), name, *map(str, figures)])
    heads = ("stage", "operator", "kernel", "stride", "expansion", "channels", "layers")
    note = (
        f"winner.toml has this row: zoo show winner.toml, zoo train winner.toml --data {result.data}. Trained as the "
        f"zoo trains it, at {result.space.train_size} px, it is another experiment than this search."
    )
    return tag("section", tag("h2", "The winner"), tag("p", note, class_="note"), table(heads, rows, words=(0, 1)))


def _finalists_section(result: SearchResult) -> Markup | None:
    """The long trainings, as intervals and as a table."""
    if not result.finalists:
        return None
    bars = [_finalist_bar(one, result) for one in result.finalists]
    chart = bar_chart(
        [Group(heading="Reward after long training", bars=bars)],
        title="Finalists",
        description=f"{result.long_epochs} epochs instead of {result.epochs}, with fresh seeds; whiskers are 95 % "
        "intervals for other pictures of the same kind.",
        axis="",
    )
    rows: list[list[Child]] = []
    ranks = sorted(result.finalists, key=lambda one: one.short_reward.value, reverse=True)
    for place, one in enumerate(result.finalists, start=1):
        deviation = "" if one.deviation is None else f" ± {100 * one.deviation:.2f}"
        top1 = f"{100 * one.top1:.2f}{deviation} %"
        names = joined(one.names)
        cells = [one.code, names, with_ends(one.reward), top1, f"{one.seeds}", percent(one.short_top1)]
        rows.append([str(place), *cells, str(ranks.index(one) + 1)])
    heads = ("", "network", "table of", "reward", "top-1 (± deviation of seeds)", "n", "short top-1", "short rank")
    said = [sentence for sentence in (_trust(result.accuracy_agreement), _reward_trust(result)) if sentence]
    notes = [tag("p", sentence, class_="note") for sentence in said]
    return tag("section", tag("h2", "Trained for longer"), *notes, chart, table(heads, rows, words=(0, 1, 2)))


def _reward_trust(result: SearchResult) -> str:
    found = result.reward_agreement
    if found is None:
        return ""
    return (
        f"Of the rewards, which share step time and parameters in both, it is τ {found.kendall:.2f}, ρ "
        f"{found.spearman:.2f}."
    )


def _finalist_bar(one: Finalist, result: SearchResult) -> Bar:
    is_winner = result.winner is not None and one.code == result.winner.code
    colour = "orange" if is_winner else "series-2" if one.names else "blue"
    label = joined(one.names) or one.code
    text = digits(one.reward.value)
    spoken = f"{one.code}: reward {with_ends(one.reward)}"
    low, high = one.reward.low, one.reward.high
    return Bar(label=label, value=one.reward.value, text=text, colour=colour, spoken=spoken, low=low, high=high)


def _operators_section(result: SearchResult) -> Markup | None:
    """Which operator the better half of the trials has in each stage, beside all trials."""
    finished = result.finished
    if len(finished) < 4:
        return None
    better = finished[: len(finished) // 2]
    rows: list[list[Child]] = []
    for place in range(len(result.space.stages)):
        cells = [_fused_share(group, place) for group in (better, finished)]
        best = finished[0].trial.candidate.stages[place]
        rows.append([str(place + 1), *cells, OPERATOR_NAMES[best.operator] if best else "gone"])
    note = (
        "How many have a Fused-MBConv in a stage, of those that have the stage. The better half is by the reward of "
        "the short training; where both columns are alike, the stage's operator did not decide."
    )
    heads = ("stage", "fused, better half", "fused, all", "the best has")
    shown = table(heads, rows, words=(0, 3))
    return tag("section", tag("h2", "Fused-MBConv or MBConv"), tag("p", note, class_="note"), shown)


def _fused_share(group: Sequence[ScoredTrial], place: int) -> str:
    own = [stage for one in group if (stage := one.trial.candidate.stages[place]) is not None]
    fused = sum(stage.operator == "fused_mbconv" for stage in own)
    return f"{fused} of {len(own)}"


def _trials_section(result: SearchResult) -> Markup:
    rest = [one for one in result.trials if one.trial.state != "finished"]
    rows = [_trial_row(one) for one in (*result.finished, *rest)]
    heads = ["network", "reward", "top-1, 95 %", "step ×", "step", "parameters", "MACs"]
    heads += ["latency"] * bool(result.latency_engine)
    heads += ["trial", ""]
    if not result.latency_engine:
        rows = [[*row[:7], *row[8:]] for row in rows]
    note = (
        "A network is one word for each stage: f3e4x2 is Fused-MBConv 3×3, expansion 4, two layers; m is MBConv, s25 a "
        "squeeze of 25 %, 0 a stage that is gone."
    )
    shown = table(heads, rows, words=(0, len(heads) - 1))
    return tag("section", tag("h2", "Trials"), tag("p", note, class_="note"), shown)


def _trial_row(one: ScoredTrial) -> list[Child]:
    trial = one.trial
    names = tag("span", f" {joined(one.names)}", class_="muted") if one.names else ""
    reward = with_ends(one.reward) if one.reward else "–"
    accuracy, step, ratio, params, macs, latency = ("–",) * 6
    if trial.trained:
        low, high = trial.trained.interval
        accuracy = f"{100 * trial.trained.top1:.1f} ({100 * low:.0f} – {100 * high:.0f})"
    if trial.costs:
        ratio = f"{trial.costs.step.ratio:.2f} ({trial.costs.step.low:.2f} – {trial.costs.step.high:.2f})"
        step = milliseconds(trial.costs.step.ms)
        params, macs = count(trial.costs.num_params), count(trial.costs.macs)
        latency = milliseconds(trial.costs.latency.ms) if trial.costs.latency else "–"
    state = trial.state
    if state == "stopped early" and trial.trained:
        state_text = f"stopped after {trial.trained.epochs}"
    else:
        state_text = f"{state}: {trial.reason}" if trial.reason else state
    mark = None if state == "finished" else pill(state_text, PILLS[state])
    name = tag("span", trial.code, names)
    return [name, reward, accuracy, ratio, step, params, macs, latency, str(trial.number), mark]


def _how_section(result: SearchResult) -> Markup:
    """The formula, what is measured how, and the reference."""
    reward = result.space.reward
    used = [(name, sign) for name, sign in SIGNS if name != "latency" or result.latency_engine]
    formula = " · ".join(["A", *(f"{sign}^{getattr(reward, name):g}" for name, sign in used)])
    sentences = [
        f"The reward is {formula}: top-1 A, the time of a training step S and the parameters P, both as multiples of "
        f"the reference network's, {result.unit.code} (EfficientNetV2 §3.3, w = −0.07 and v = −0.05 there).",
        "S is wall time on the device named above: the network and the reference make steps in turn, on noise of the "
        "trial's size; its interval is Hodges and Lehmann's over rounds. The interval of A is Wilson's over the "
        "validation pictures. Neither knows what another seed would do: that is what the finalists' fresh seeds show.",
    ]
    if result.latency_engine:
        sentences.append(f"L is the sum of a table of single blocks ({result.latency_engine}), and an estimate.")
    taken = sum(one.trial.trained.seconds for one in result.trials if one.trial.trained)
    longer = sum(training.trained.seconds for training in result.trainings)
    sentences.append(f"Trials trained for {duration(taken)} in all, finalists for {duration(longer)}.")
    return tag("section", tag("h2", "How it was measured"), *(tag("p", sentence) for sentence in sentences))


def with_ends(scored: Scored) -> str:
    """“0.653 (0.62 – 0.69)”."""
    return f"{scored.value:.4f} ({scored.low:.3f} – {scored.high:.3f})"
