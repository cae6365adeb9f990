"""Owns evaluation: labelled pictures through any `Runner`, accuracy or mAP out; it prints and trains nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.contract import Contract
from export.interface import as_logits
from export.options import EvaluateOptions
from export.passport import check_exists, passport_path, provenance_of
from export.runners.mirrored import Mirrored
from export.runners.runner import Runner, are_finite, not_finite
from zoo.data.folds import fold_rule, open_fold, read_fold_rule
from zoo.data.hold_out import RULE
from zoo.data.http import AUTHORIZATION_VARIABLE, authorization, is_address
from zoo.data.open import has_split, is_held_out, open_val, was_recorded
from zoo.data.pictures import Pictures, load_prepared
from zoo.errors import DataError
from zoo.label_scores import binary_cross_entropy, count_labels, mean_average_precision, sigmoid
from zoo.rows import Count, CountOrNone, NotNegative, Row, Share, Text
from zoo.weights.mistaken import EXPORTED_SUFFIXES
from zoo.weights.resolve import check_name

TOP = 5


@dataclass(frozen=True, kw_only=True)
class Evaluation(Row):
    """What `zoo evaluate --json` prints: accuracies, mean cross-entropy in nats, and the number of pictures.

    `top5` is None where there are no more than five classes: it would be 1 whatever the answers. With `flip`
    each answer is the mean of those to a picture and to its mirror image.
    """

    top1: Share
    top5: Share | None
    loss: NotNegative
    n: Count
    artifact: Text
    flip: bool = False


@dataclass(frozen=True, kw_only=True)
class LabelEvaluation(Row):
    """What `zoo evaluate --json` prints of an artifact that answers several labels a picture.

    `map` is the mean average precision over the `classes` that have pictures, as is `macro_f1`; F1 is at the artifact's
    own thresholds. The loss is the sum over all classes, in nats, the mean over pictures.
    """

    written_too = ("task",)

    map: Share
    micro_f1: Share
    macro_f1: Share
    loss: NotNegative
    classes: CountOrNone
    n: Count
    artifact: Text
    flip: bool = False

    @property
    def task(self) -> str:
        """Tells this row from `Evaluation`."""
        return "multi-label"


def evaluate(
    runner: Runner,
    pictures: Pictures,
    *,
    batch_size: int = EvaluateOptions.batch_size,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_broken: Callable[[str], None] = lambda problem: None,
) -> Evaluation | LabelEvaluation:
    """Measure a runner on labelled pictures, leaving out the broken ones.

    Args:
        runner: any back end, or one that asks it for mirror images too (`open_runner` with `flip`).
        pictures: their classes are matched with the artifact's by name. An artifact that answers several labels takes
            pictures of one class too: that is their only label.
        batch_size: at most this many at once, fewer where the runner takes fewer.
        on_progress: called with the number of pictures done and of all.
        on_broken: called with what is wrong with a picture that cannot be decoded.

    Raises:
        DataError: a class the artifact does not know, several labels where it answers one, mirror images of pictures
            that are of another class then, or no picture that can be decoded.
        ArtifactError: logits that are not finite, of how many pictures.
    """
    contract, flip = runner.contract, isinstance(runner, Mirrored)
    if flip and not pictures.flip_keeps_class:
        raise DataError(f"Mirrored, the pictures of {pictures.name} are of another class.", "Leave --flip out.")
    index_of = match_classes(pictures, contract.classes)
    answered = _answers(runner, pictures, min(batch_size, runner.max_batch_size or batch_size), on_progress, on_broken)
    if contract.thresholds is not None:
        return _judge_labels(answered, index_of, contract, runner.artifact, flip=flip)
    if pictures.multi_label:
        raise DataError(
            f"{runner.artifact} answers one class a picture, and those of {pictures.name} may have several.",
            "Evaluate it on pictures of one class each, or train on these: `zoo train MODEL --data …`.",
        )
    ranks: list[NDArray[np.int64]] = []
    losses: list[NDArray[np.float64]] = []
    for chunk, logits in answered:
        labels = index_of[chunk.labels]
        ranks.append(rank_of(logits, labels))
        losses.append(cross_entropy(logits, labels))
    rank = np.concatenate(ranks)
    return Evaluation(
        top1=float((rank < 1).mean()),
        top5=float((rank < TOP).mean()) if len(contract.classes) > TOP else None,
        loss=float(np.concatenate(losses).mean()),
        n=len(rank),
        artifact=runner.artifact,
        flip=flip,
    )


def _judge_labels(
    answered: Iterator[tuple[Pictures, NDArray[np.float32]]],
    index_of: NDArray[np.int64],
    contract: Contract,
    artifact: str,
    *,
    flip: bool,
) -> LabelEvaluation:
    scores: list[NDArray[np.float32]] = []
    targets: list[NDArray[np.bool_]] = []
    losses: list[NDArray[np.float64]] = []
    for chunk, logits in answered:
        own = np.zeros(logits.shape, np.bool_)
        own[:, index_of] = chunk.all_targets()
        scores.append(sigmoid(logits))
        targets.append(own)
        losses.append(binary_cross_entropy(logits, own))
    score, target = np.concatenate(scores), np.concatenate(targets)
    counts = count_labels(score, target, np.array(contract.thresholds))
    return LabelEvaluation(
        map=mean_average_precision(score, target),
        micro_f1=counts.micro_f1,
        macro_f1=counts.macro_f1,
        loss=float(np.concatenate(losses).mean()),
        classes=int((counts.pictures > 0).sum()),
        n=len(score),
        artifact=artifact,
        flip=flip,
    )


def _answers(
    runner: Runner,
    pictures: Pictures,
    step: int,
    on_progress: Callable[[int, int], None],
    on_broken: Callable[[str], None],
) -> Iterator[tuple[Pictures, NDArray[np.float32]]]:
    """The readable pictures in batches, with their logits (N, K), all finite.

    Raises:
        DataError, ArtifactError: as `evaluate`, at the end.
    """
    broken: list[str] = []
    usable_count = unusable = 0
    for start in range(0, len(pictures), step):
        chunk = pictures.at(np.arange(start, min(start + step, len(pictures))))
        prepared, kept, messages = load_prepared(chunk, runner.contract.preprocessing)
        broken += messages
        for problem in messages:
            on_broken(problem)
        if kept:
            logits = as_logits(runner.infer(prepared), runner.contract)
            usable = are_finite(logits)
            usable_count += int(usable.sum())
            unusable += int((~usable).sum())
            yield chunk.at(np.array(kept)[usable]), logits[usable]
        on_progress(start + len(chunk), len(pictures))
    if not usable_count + unusable:
        raise DataError(f"None of the {len(pictures)} pictures of {pictures.name} can be decoded.", broken[0])
    if unusable:
        raise not_finite(runner.artifact, unusable, unusable + usable_count)


def rank_of(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many classes score above the true one, per picture: 0 is right. (N, K) and (N,) → (N,).

    A tie counts against the true class unless that comes first, as in argmax.
    """
    truth = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    rank: NDArray[np.int64] = ((logits > truth) | ((logits == truth) & earlier)).sum(axis=1)
    return rank


def cross_entropy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """−log softmax of the true class, in nats, without overflow. (N, K) and (N,) → (N,)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    truth = np.take_along_axis(shifted, labels[:, None], axis=1)[:, 0]
    loss: NDArray[np.float64] = np.log(np.exp(shifted).sum(axis=1)) - truth
    return loss


def match_classes(pictures: Pictures, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Where each class of the data is among the artifact's, by name. Fewer classes than the artifact has are fine.

    Raises:
        DataError: a class the artifact does not have, or has under one name twice.
    """
    if pictures.classes == classes:
        return np.arange(len(classes))
    unknown = [name for name in pictures.classes if name not in classes]
    if unknown:
        raise DataError(
            f"{len(unknown)} of the {len(pictures.classes)} classes of {pictures.name} are not among the artifact's "
            f"{len(classes)}: {_some(unknown)}.",
            f"The artifact's classes are {_some(classes)}; name the folders after them.",
        )
    twice = [name for name in pictures.classes if classes.count(name) > 1]
    if twice:
        raise DataError(
            f"The artifact has two classes called {twice[0]!r}; the folder of that name could mean either.",
            "Leave that folder out.",
        )
    return np.array([classes.index(name) for name in pictures.classes], np.int64)


def _some(names: list[str] | tuple[str, ...], count: int = 5) -> str:
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")


@dataclass(frozen=True, kw_only=True)
class Recorded(Row):
    """The data an artifact was trained with and the seed of its split.

    A checkpoint records a folder's path; an .onnx or .plan, which travels, the folder's name only (`by_name`).
    """

    data: Text
    seed: CountOrNone
    by_name: bool
    hold_out: str | None = None
    group_by: str | None = None

    def is_of(self, data: str) -> bool:
        """Whether `data` names these pictures, as far as one can tell."""
        return was_recorded(data, self.data) or (self.by_name and Path(data).resolve().name == self.data)


def open_data(artifact: str, data: str | None, *, seed: int | None = None, group_by: str | None = None) -> Pictures:
    """Open the pictures to evaluate an artifact on: `data`, or else those it was validated on while training.

    Args:
        artifact: as `export.runners.open.open_runner` takes it.
        data: digits or a folder; None means what the artifact recorded.
        seed: split of a folder that has none; None means the one recorded for this data, and all pictures of a folder
            that was not recorded. The name of the result says which.
        group_by: what was kept together when such a folder was split; None means what was recorded.

    Raises:
        ArtifactError, UnknownNameError: there is no such artifact.
        DataError: the artifact recorded nothing, the data cannot be used, `seed` or `group_by` has no effect, or an
            address was recorded, which anyone may have written there, and an authorization would be sent to it.
    """
    check_name(artifact)
    recorded = recorded_data(artifact)
    known = recorded.data if recorded and (recorded.data == "digits" or not recorded.by_name) else None
    chosen = known if data is None else data
    if not chosen:
        if Path(artifact).suffix in EXPORTED_SUFFIXES:
            check_exists(Path(artifact))
        raise _unrecorded(artifact, recorded)
    if not data and is_address(chosen) and authorization():
        raise DataError(
            f"{artifact} names {chosen}, and {AUTHORIZATION_VARIABLE} would be sent there.",
            f"If that is right: --data {chosen}",
        )
    own = recorded if seed is None and recorded and recorded.is_of(chosen) else None
    fold = read_fold_rule(own.hold_out) if own else None
    if own and fold:
        return _open_fold(own, chosen, fold, group_by)
    held_out = is_held_out(chosen)
    if own and held_out and own.hold_out != RULE:
        raise DataError(
            f"{artifact} was trained by a version that held out other pictures of {chosen} than this one does.",
            "Evaluate it on a folder with train/ and val/, or on pictures that it was not trained on.",
        )
    for option, given in (("--seed", seed), ("--group-by", group_by)):
        if given is not None and (not held_out or (seed is None and own is None)):
            raise DataError(
                f"{option} has no effect: no pictures of {chosen} are held out here.",
                "--seed is for a folder that has no part to validate on; --group-by goes with it, or with the data an "
                "artifact was trained on.",
            )
    if own:
        seed, group_by = own.seed, group_by or (own.group_by if held_out else None)
    pictures = open_val(chosen, seed=seed, group_by=group_by)
    if has_split(chosen):
        return pictures
    which = "all of them" if seed is None else f"the fifth that training with seed {seed} holds out"
    return replace(pictures, name=f"{pictures.name}, {which}")


def _open_fold(recorded: Recorded, data: str, fold: tuple[int, int], group_by: str | None) -> Pictures:
    """The pictures that the run of a fold was validated on.

    Raises:
        DataError: as `open_folds`, or `group_by` is another one.
    """
    if group_by not in (None, recorded.group_by):
        raise DataError("--group-by has no effect: the artifact is of a fold, which is recorded.", "Leave it out.")
    pictures = open_fold(data, *fold, seed=recorded.seed, group_by=recorded.group_by)[1]
    return replace(pictures, name=f"{data}, {fold_rule(*fold)}", root=pictures.root or pictures.name)


def _unrecorded(artifact: str, recorded: Recorded | None) -> DataError:
    """Describe an artifact that does not say where the pictures it was validated on are."""
    if recorded:
        return DataError(
            f"{artifact} was trained on {recorded.data}; an artifact records a folder's name, not where it is.",
            f"Pass --data PATH/TO/{recorded.data}.",
        )
    path = Path(artifact)
    if path.suffix in EXPORTED_SUFFIXES and not passport_path(path).is_file():
        return DataError(
            f"{artifact} has no passport {passport_path(path).name} beside it, which would say what it was trained on.",
            "Pass --data digits or --data FOLDER, or copy the passport along with it.",
        )
    return DataError(
        f"{artifact} does not say which pictures it was trained on.", "Pass --data digits or --data FOLDER."
    )


def recorded_data(artifact: str) -> Recorded | None:
    """The data that an artifact's checkpoint or passport records, if any."""
    provenance = provenance_of(artifact)
    data, by_name = provenance.get("data"), Path(artifact).suffix in EXPORTED_SUFFIXES
    if not data:
        return None
    return Recorded(
        data=str(data),
        seed=int(provenance.get("seed") or 0),
        by_name=by_name,
        hold_out=provenance.get("hold_out"),
        group_by=provenance.get("group_by"),
    )
