"""Owns the page of a run: what it says first, its sections in order; it measures nothing and draws no chart itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from train.learn.job import Job
from train.learn.label_answers import LabelValidation
from train.learn.run import Epoch, HeadStart, merit_name, merit_of
from train.learn.scores import balanced_figure
from train.learn.validation import Judged, Validation
from train.progressive.rate_range import RangeTest
from train.progressive.recipe import KeptWeights, Recipe
from train.watch.charts import (
    pictures_of,
    progress_charts,
    schedule_charts,
    stage_settings,
    stage_throughput,
    throughput_chart,
)
from train.watch.classes import classes_section
from train.watch.fed import fed_sections
from train.watch.labels import label_headlines, labels_sections
from train.watch.mistakes import mistakes_sections, most_confused
from train.watch.rate import rate_section
from train.watch.thumbnails import Drawn
from train.watch.trust import calibration_section
from zoo import __version__
from zoo.machine import environment
from zoo.page.elements import environment_table, pill, plain, render_document, table
from zoo.page.markup import Child, Markup, join, tag
from zoo.wording import digits, duration, percent

RunState = Literal["running", "finished", "interrupted", "failed"]

_STYLE = Path(__file__).with_name("report.css")
# A browser that has the page of a running run open reads it again this often.
REFRESH_S = 30
SHOWN_BROKEN, SHOWN_VALUES = 50, 8
WEIGHTS: dict[KeptWeights, str] = {"averaged": "the averaged weights", "raw": "the weights themselves (no average)"}


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """How far a run is: its epochs, the latest validation, pictures left out; `reason` says why it ended early.

    `best_epoch` is the best at the final size so far, 0 for the head start; if `halfway`, the best weights lie between
    both. A finished run's `result` is theirs. `test` is the answer to the test split.
    """

    state: RunState
    history: Sequence[Epoch]
    result: Judged
    broken: Iterable[str] = ()
    reason: str = ""
    head_start: HeadStart | None = None
    range_test: RangeTest | None = None
    best_epoch: int | None = None
    halfway: bool = False
    test: Judged | None = None
    remarks: Sequence[str] = ()


def render_report(job: Job, status: RunStatus, drawn: Drawn | None = None) -> str:
    """The page of a run as text: one HTML file that needs nothing beside it.

    Args:
        status: has at least one epoch.
        drawn: pictures drawn by an earlier call; new ones are added.
    """
    drawn = drawn or Drawn(channels=job.preprocessing.channels)
    first, *others = headlines(job, status)
    known = environment()
    small = (chart.as_figure() for chart in schedule_charts(job.recipe))
    return render_document(
        kicker="zoo training run",
        title=job.title,
        subtitle=f"{job.recipe.name} recipe, {known['time'][:16].replace('T', ' ')} UTC",
        main=[
            _state_line(job, status),
            tag("p", first, class_="headline"),
            tag("ul", *(tag("li", sentence) for sentence in others), class_="headlines") if others else None,
            *(chart.as_figure() for chart in progress_charts(status.history, job.recipe, status.best_epoch)),
            *_answers_sections(job, status, drawn),
            *fed_sections(job, status.history[-1].stage, drawn),
            rate_section(status.range_test),
            tag("section", tag("h2", "What changes from stage to stage"), tag("div", *small, class_="multiples")),
            throughput_chart(status.history),
            _stages_table(job, status),
            _broken_section(sorted(status.broken)),
            _provenance(job, status, known),
        ],
        footer=f"Made by `zoo train` {__version__}. The figures of every epoch are in metrics.jsonl beside this page.",
        style=_STYLE,
        refresh_s=REFRESH_S if status.state == "running" else None,
    )


def _answers_sections(job: Job, status: RunStatus, drawn: Drawn) -> list[Markup | None]:
    """How good the network is, by the test pictures where there are any, what it gets wrong, and its scores."""
    result, test = status.result, status.test
    if isinstance(result, LabelValidation):
        return [*labels_sections(job, result, test if isinstance(test, LabelValidation) else None, drawn)]
    single = test if isinstance(test, Validation) else None
    judged, split = (single, "test") if single else (result, "validation")
    return [
        classes_section(job, judged.answers, split),
        *mistakes_sections(job, result.answers, drawn),
        calibration_section(result, single),
    ]


def described(job: Job) -> dict[str, Any]:
    """What a run was told besides network, data and recipe, as people read it."""
    settings = job.settings
    said: dict[str, Any] = {
        "started from": job.start.label if job.start else "a fresh initialisation",
        "seed": settings.seed,
        "precision": settings.precision,
        "device": settings.device_name if settings.device.type == "cuda" else "CPU",
        "decoding processes": settings.workers,
        "flip and RandAugment": f"by the {settings.augment_on}",
        "activations": "computed again for gradients" if settings.checkpoint_activations else "kept for gradients",
        "validated and kept": WEIGHTS[job.recipe.kept_weights],
    }
    return said if settings.world.is_alone else said | {"training processes": settings.world.size}


def headlines(job: Job, status: RunStatus) -> list[str]:
    """What a run says of itself, the result first."""
    rate = [status.range_test.sentence] if status.range_test else []
    said = [
        *_about_accuracy(job, status),
        *status.remarks,
        *rate,
        *_about_cost(job, status),
        *_about_mistakes(job, status),
    ]
    return [sentence.replace(" %", "\N{NO-BREAK SPACE}%") for sentence in said]


def _about_accuracy(job: Job, status: RunStatus) -> Iterator[str]:
    last, test, result = status.history[-1], status.test, status.result
    count = len(result.answers.index)
    if test:
        yield (
            f"{_figure(test)}{_balanced(test, job)} on {len(test.answers.index):,} test pictures at {last.val_size} "
            "px, which were looked at once, at the end."
        )
    done = status.state == "finished"
    where = f"at {last.val_size} px" + ("" if done else f" after epoch {last.epoch} of {job.recipe.epochs}")
    yield f"{_figure(result)}{_balanced(result, job)} on {count:,} validation pictures {where}."
    yield from _about_choice(job, status)
    if isinstance(result, LabelValidation):
        yield from label_headlines(result, test if isinstance(test, LabelValidation) else None)
        return
    error = (result.top1 * (1 - result.top1) / count) ** 0.5
    if error:
        yield f"With {count:,} pictures, the standard error of that accuracy is {100 * error:.2g} percentage points."


def _about_choice(job: Job, status: RunStatus) -> Iterator[str]:
    """What the head start reached, and which epoch's weights these are."""
    found, best = status.head_start, status.best_epoch
    if found:
        head = f"A classifier on the features of the weights as they were reached {_accuracy(found.merit)}"
        yield f"{head} in {duration(found.seconds)}: what every epoch had to beat."
    if status.state != "finished":
        return
    weights = WEIGHTS[job.recipe.kept_weights]
    if best is None:
        yield f"The checkpoint has {weights} after the last epoch."
        return
    metric = {"top1": "top-1", "map": "mAP"}.get(job.recipe.metric, job.recipe.metric.replace("_", " "))
    whose = f"after epoch {best} of {len(status.history)}" if best else "at the head start: no epoch was better"
    if status.halfway:
        whose = f"halfway from the head start to those after epoch {best} of {len(status.history)}"
    if best and metric != "loss":
        metric += ", within its standard error the best in loss,"
    yield f"The checkpoint has {weights} {whose}, the best in {metric} at the final size."
    if not status.test:
        yield "They were chosen by the same pictures, which flatters the figure a little; a test/ folder would not."


def _about_cost(job: Job, status: RunStatus) -> Iterator[str]:
    recipe, share = job.recipe, job.cost.share_of_fixed_size
    sizes = [stage.image_size for stage in recipe.stages]
    throughout = f"{recipe.largest_size} px throughout"
    if len(set(sizes)) > 1:
        span = f"{sizes[0]} → {sizes[-1]}" if sizes == sorted(sizes) else f"{min(sizes)} … {max(sizes)}"
        yield f"{len(sizes)} stages, {span} px: {percent(share)} of the multiply-adds of training at {throughout}."
    time_share = share_of_fixed_time(status.history, recipe)
    seconds = sum(line.seconds for line in status.history)
    if time_share is not None:
        yield (
            f"At the pace measured at {recipe.largest_size} px, the same epochs at {throughout} would have taken "
            f"{duration(seconds / time_share)}; this run took {duration(seconds)}, {percent(time_share)} of that "
            "(validation apart)."
        )
    else:
        epochs = len(status.history)
        yield f"Training took {duration(seconds)} for {epochs} epoch{'s' if epochs > 1 else ''}, validation apart."


def share_of_fixed_time(history: Sequence[Epoch], recipe: Recipe) -> float | None:
    """Training time as a share of what the same pictures would take at the pace of the largest size.

    None before that size has an epoch, if all stages have the same size, and if a stage trains the classifier alone,
    which has another pace. It is an extrapolation: at one size throughout, caches and decoders may behave a little
    differently.
    """
    at_largest = [line for line in history if line.image_size == recipe.largest_size]
    one_size = len({stage.image_size for stage in recipe.stages}) == 1
    if one_size or not at_largest or any(stage.freeze_backbone for stage in recipe.stages):
        return None
    pace = pictures_of(at_largest) / sum(line.seconds for line in at_largest)
    return sum(line.seconds for line in history) * pace / pictures_of(history)


def _about_mistakes(job: Job, status: RunStatus) -> Iterator[str]:
    if isinstance(status.result, Validation):
        answers = status.result.answers
        for true, taken, count in most_confused(answers, 1):
            total = int((answers.label == true).sum())
            yield f"Most confused: {job.classes[true]} taken for {job.classes[taken]}, {count} of {total}."
    broken = len(list(status.broken))
    if broken:
        which = "One picture" if broken == 1 else f"{broken:,} pictures"
        yield f"{which} could not be decoded and {'is' if broken == 1 else 'are'} left out."


def _figure(result: Judged) -> str:
    """“92.50 % top-1”, or “71.30 % mAP”."""
    return f"{_accuracy(merit_of(result.top1, result.map))} {merit_name(result.map)}"


def _balanced(result: Judged, job: Job) -> str:
    """“, 92.50 % balanced accuracy”, where the best epoch is chosen by it."""
    fair = balanced_figure(result, job.recipe.metric)
    return "" if fair is None else f", {_accuracy(fair)} balanced accuracy (the mean of the classes' recalls),"


def _accuracy(share: float) -> str:
    return f"{100 * share:.2f} %"


def _state_line(job: Job, status: RunStatus) -> Markup:
    done, total = len(status.history), job.recipe.epochs
    words: dict[RunState, tuple[str, str, str]] = {
        "running": ("running", "running", f"epoch {done} of {total} is done; this page reloads itself"),
        "finished": ("finished", "finished", f"{total} epochs"),
        "interrupted": ("interrupted", "stopped", f"after epoch {done} of {total}; --resume continues"),
        "failed": ("failed", "stopped", f"after epoch {done} of {total}"),
    }
    name, colour, said = words[status.state]
    reason = f": {status.reason}" if status.reason else ""
    return tag("p", pill(name, colour), " ", tag("span", said + reason, class_="muted"), class_="state")


def _stages_table(job: Job, status: RunStatus) -> Markup:
    """The recipe's stages: what each of them has taken so far, then what it sets."""
    settings, measured = stage_settings(job.recipe), stage_throughput(status.history)
    heads = [
        "stage",
        f"{status.history[-1].merit_name} at its end",
        "time",
        "pictures/s",
        "share of MACs",
        "steps",
        *settings,
    ]
    rows: list[list[Child]] = []
    for number, cost in enumerate(job.cost.stages, start=1):
        taken: list[Child] = ["", "", ""]
        if number in measured:
            _, rate, seconds = measured[number]
            last = [line for line in status.history if line.stage == number][-1]
            taken = [f"{100 * last.merit:.1f} % at {last.val_size} px", duration(seconds), digits(rate)]
        planned = [percent(cost.macs / job.cost.macs), f"{cost.steps:,}"]
        rows.append([str(number), *taken, *planned, *(f"{values[number - 1]:.3g}" for values in settings.values())])
    return tag("section", tag("h2", "Stages"), table(heads, rows))


def _broken_section(messages: Sequence[str]) -> Markup | None:
    if not messages:
        return None
    more = len(messages) - SHOWN_BROKEN
    return tag(
        "section",
        tag("h2", "Pictures left out"),
        tag("ul", *(tag("li", message) for message in messages[:SHOWN_BROKEN]), class_="broken"),
        tag("p", f"and {more:,} more", class_="note") if more > 0 else None,
    )


def _provenance(job: Job, status: RunStatus, known: Mapping[str, Any]) -> Markup:
    recipe = {key: value for key, value in job.recipe.to_dict().items() if key != "stages"}
    run = {
        "network": f"{job.variant.name} ({job.variant.id})",
        "data": job.data,
        "pictures": f"{len(job.train_set):,} for training, {len(job.val_set):,} for validation",
        "classes": f"{len(job.classes):,}",
    }
    return join(
        tag("section", tag("h2", "Where it comes from"), _fact_table(run | described(job))),
        tag("section", tag("h2", "Recipe"), _fact_table(recipe)),
        tag("section", tag("h2", "Environment"), environment_table(known)),
    )


def _fact_table(values: Mapping[str, Any]) -> Markup:
    return environment_table({key: _shortened(value) for key, value in values.items() if value is not None})


def _shortened(value: Any) -> str:
    """A value in words; of a long list, such as a weight for each of a thousand classes, only the beginning."""
    if isinstance(value, list) and len(value) > SHOWN_VALUES:
        return f"{plain(value[:SHOWN_VALUES])}, … ({len(value):,} values)"
    return plain(value)
