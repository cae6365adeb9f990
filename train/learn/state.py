"""Owns the state of a run on disk: saved so that the run can be resumed, read, and compared with what is asked."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from train.learn.job import Job
from train.learn.run import Best, Epoch, HeadStart, PartialEpoch, Run
from train.progressive.budget import Budget
from train.progressive.rate_range import RangeTest
from train.progressive.recipe import Recipe
from zoo.errors import CheckpointError, RowError, ZooError
from zoo.files import replacing, writing_errors
from zoo.model.spec import RGB
from zoo.wording import joined

STATE_KEYS = {"model", "average", "optimizer", "scaler", "step", "history", "partial", "broken", "identity"}
# Settings that may differ where a run goes on with a longer schedule: what follows from its length, and from how often
# each picture is seen then.
SCHEDULED = ("epochs", "warmup_epochs", "learning_rate", "ema_decay", "norm_momentum", "patience")
HARDENED = ("crop_scale", "randaugment_magnitude", "mixup_alpha", "dropout", "stochastic_depth_prob")
# What pictures are tested at follows the crops.
TESTED = ("test_size", "test_resize", "test_crop_margin")
EXTENDED = (*SCHEDULED, *HARDENED, *TESTED)
# Keys of the identity, in the words of an error. States of earlier versions do not have them.
FILES = ("training files (names or sizes)", "validation files (names or sizes)")
NETWORK, LAYERS, WEIGHTS = "network", "layers of the network", "weights to begin from"
LATER = (*FILES, NETWORK, LAYERS, WEIGHTS)
# Those whose value is short enough to be named.
NAMED = ("seed", "precision", "channels", "pictures", NETWORK)


def _identity(job: Job) -> dict[str, Any]:
    """What must be equal for a run to be resumed.

    `accumulate` may differ: the machine decides in how many parts a batch is taken. The precision may not: it changes
    what is learnt, and only fp16's loss scaling has a state.
    """
    recipe, pictures = job.recipe, job.train_set
    labels = pictures.labels if pictures.targets is None else pictures.targets
    whole = replace(recipe, stages=tuple(replace(stage, accumulate=1) for stage in recipe.stages))
    return {
        NETWORK: job.variant.name,
        LAYERS: job.variant.to_dict(),
        WEIGHTS: job.start.sha256 if job.start else None,
        "recipe": whole.to_dict(),
        "seed": job.settings.seed,
        "precision": job.settings.precision,
        "channels": job.preprocessing.channels,
        "classes": list(pictures.classes),
        "pictures": len(pictures),
        "labels": hashlib.sha256(labels.tobytes()).hexdigest(),  # in order: steps are counted in it
        **dict(zip(FILES, job.fingerprints, strict=True)),
    }


def save_state(run: Run, job: Job, path: Path, budget: Budget | None = None) -> None:
    """Write all that a resumed run needs, whole or not at all; of a run in a `budget`, how much of it is gone.

    Raises:
        ZooError: it cannot be written; an earlier state stays.
    """
    state = {
        "model": run.model.state_dict(),
        "average": run.average.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "step": run.step,
        "history": [line.to_dict() for line in run.history],
        "partial": vars(run.partial) if run.partial else None,
        "broken": sorted(run.broken),
        "identity": _identity(job),
        "head_start": run.head_start.to_dict() if run.head_start else None,
        "range_test": run.range_test.to_dict() if run.range_test else None,
        "best": vars(run.best) if run.best else None,
        "best_trained": run.best_trained,
        "highest": run.highest,
        "fitted": run.fitted,
        "portion": run.portion,
        "budget": budget.to_dict() if budget else None,
    }
    try:
        with replacing(path) as temporary, writing_errors(RuntimeError), temporary.open("wb") as file:
            torch.save(state, file)
    except ZooError as error:
        goes_on = "Make room: the same command with --resume goes on from it."
        raise ZooError(error.problem, goes_on if path.exists() else error.hint) from error


def read_state(path: Path, device: torch.device) -> Mapping[str, Any]:
    """Read what `save_state` wrote.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} is damaged: the run cannot be resumed.", "Start again without --resume."
        ) from error
    if not isinstance(state, dict) or not state.keys() >= STATE_KEYS:
        raise CheckpointError(f"{path} is not the state of a run of ours.", "Start again without --resume.")
    return state


def recipe_of_state(state: Mapping[str, Any], path: Path) -> Recipe:
    """The recipe of the run whose state this is, which was read from `path`.

    Raises:
        CheckpointError: it is of another version.
    """
    try:
        return Recipe.from_dict(state["identity"]["recipe"])
    except RowError as error:
        raise CheckpointError(
            f"{path} is of another version: {error.problem}", "Start again without --resume."
        ) from error


def with_batches_of(recipe: Recipe, earlier: Recipe) -> Recipe:
    """The recipe with the batches of an earlier one: they follow from its length, and a state's steps are counted in
    them. Of other stages they stay.
    """
    if len(recipe.stages) != len(earlier.stages):
        return recipe
    pairs = zip(recipe.stages, earlier.stages, strict=True)
    return replace(recipe, stages=tuple(replace(own, batch_size=was.batch_size) for own, was in pairs))


def budget_of_state(state: Mapping[str, Any]) -> Budget | None:
    """The budget of a state's run, as it was then; None of a run without one, or of an earlier version."""
    found = state.get("budget")
    return Budget.from_dict(found) if found else None


def head_start_of_state(state: Mapping[str, Any]) -> HeadStart | None:
    """What the head start of the run whose state this is has found, if there was one."""
    found = state.get("head_start")
    return HeadStart.from_dict(found) if found else None


def changed_identity(state: Mapping[str, Any], job: Job) -> list[str]:
    """What differs between a state's run and a job, but for the recipe: named, with values where they are short."""
    there = {"channels": RGB} | state["identity"]  # earlier versions knew no other
    changed = [
        f"{key} ({there.get(key, 'unknown')}, here {value})" if key in NAMED else key
        for key, value in _identity(job).items()
        if key != "recipe" and there.get(key) != value and (key in there or key not in LATER)
    ]
    if any(named.startswith((f"{NETWORK} (", "channels (")) for named in changed):  # which have other layers
        changed = [named for named in changed if named != LAYERS]
    return changed


def changed_settings(there: Mapping[str, Any], recipe: Recipe) -> dict[str, str]:
    """The settings of a recipe that differ from those of a state, as "0.001, here 0.01"."""
    try:
        earlier = _settings(Recipe.from_dict(there))
    except RowError:
        return {"recipe": "of another version of zoo"}
    here = _settings(recipe)
    return {
        name: f"{earlier.get(name, 'none')}, here {here.get(name, 'none')}"
        for name in (*here, *(name for name in earlier if name not in here))
        if earlier.get(name) != here.get(name)
    }


def _settings(recipe: Recipe) -> dict[str, Any]:
    """Every setting of a recipe by its path, as `--set` has them; `accumulate` is the machine's.

    Whether the rate was found is told by the state itself; what matters is the rate.
    """
    fields = recipe.to_dict()
    stages = fields.pop("stages")
    fields.pop("find_lr")
    of_stages = {
        f"stages.{number}.{name}": value
        for number, stage in enumerate(stages, start=1)
        for name, value in stage.items()
        if name != "accumulate"
    }
    return fields | of_stages


def refuse_others(path: Path, changed: Sequence[str], *, longer: bool) -> None:
    """Refuse to resume a run that is not the one that is asked for.

    Args:
        changed: what differs.
        longer: `--extend` would go on all the same.

    Raises:
        CheckpointError: something does.
    """
    if changed:
        extends = "--extend goes on with the other schedule; " if longer else ""
        raise CheckpointError(
            f"{path} belongs to a run with other {joined(changed)}.",
            f"Give the flags and the pictures of that run again; {extends}without --resume a new run begins, and with "
            "`zoo train RUN …` it begins from the weights of a finished one.",
        )


def load_state(run: Run, job: Job, path: Path, *, extend: bool = False) -> str:
    """Put a run back where `save_state` left it; returns a remark on what could not be compared, else "".

    Raises:
        CheckpointError: the file is damaged, or belongs to another recipe, seed, precision or data set.
    """
    state = read_state(path, job.settings.device)
    changed = changed_identity(state, job)
    if job.recipe.find_lr and state["step"] and not state.get("range_test"):
        changed.append("find_lr (its rate was given, here it is to be found)")
    settings = changed_settings(state["identity"]["recipe"], job.recipe)
    has_meaning = all(name.rpartition(".")[2] in EXTENDED for name in settings)
    changed += [f"{name} ({values})" for name, values in settings.items() if not (extend and has_meaning)]
    refuse_others(path, changed, longer=has_meaning and not extend and len(changed) == len(settings))
    run.model.load_state_dict(state["model"])
    run.average.model.load_state_dict(state["average"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.scaler.load_state_dict(state["scaler"])
    run.step = state["step"]
    run.history = [Epoch.from_dict(line) for line in state["history"]]
    run.broken = set(state["broken"])
    run.head_start = head_start_of_state(state)
    run.range_test = RangeTest.from_dict(state["range_test"]) if state.get("range_test") else None
    run.best = Best(**state["best"]) if state.get("best") else None
    run.highest = state.get("highest", run.best.score[0] if run.best else None)
    run.fitted = state.get("fitted", {})
    # Earlier versions knew the best of all alone: an epoch, unless it was the head start.
    own = (run.best.epoch, run.best.score) if run.best and run.best.epoch else None
    run.best_trained = state.get("best_trained", own)
    run.portion = state.get("portion")
    partial = PartialEpoch(**state["partial"]) if state["partial"] else None
    # Another number of processes has other batches: it begins the epoch again.
    run.partial = partial if partial and len(partial.random) == job.settings.world.size else None
    if run.partial and not job.settings.world.is_first:
        run.partial.totals.zero_()  # the sums on disk are those of all processes
        run.partial.seen = 0
    if FILES[0] in state["identity"]:
        return ""
    return "The state does not say on which files the run was trained: whether they are the same was not checked."


def keep_random_state(device: torch.device) -> tuple[Tensor, ...]:
    """The states of torch's generators, from which dropout and stochastic depth draw."""
    gpu = (torch.cuda.get_rng_state(),) if device.type == "cuda" else ()
    return torch.get_rng_state(), *gpu


def restore_random_state(states: tuple[Tensor, ...]) -> None:
    """Put torch's generators back to what `keep_random_state` returned."""
    cpu, *gpu = states
    torch.set_rng_state(cpu.cpu())
    if gpu:
        torch.cuda.set_rng_state(gpu[0].cpu())
