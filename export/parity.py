"""Owns the gate between an artifact and its reference: the same real pictures through both, and a verdict.

It knows only the `Runner` seam, so every back end is compared by the same loop; it chooses no back end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from export.contract import TOP_CLASSES, TOP_SCORES, Contract
from export.interface import as_logits
from export.options import ExportOptions
from export.passport import Parity
from export.precision.rows import Precision, Tolerance
from export.runners.runner import Runner, are_finite, not_finite
from zoo.data.digits import sample_photographs
from zoo.data.open import is_labels, open_val, was_recorded
from zoo.data.pictures import Pictures, load_prepared
from zoo.errors import DataError, VerdictError
from zoo.model.spec import Preprocessing

if TYPE_CHECKING:
    from zoo.weights.checkpoint import Checkpoint

# Pictures at once: 8, and of larger ones than 224 px as many pixels. The activations of 8 pictures of S at 384 px are
# half a gigabyte, and a processor is no faster with them.
BATCH_SIZE, PIXELS_AT_ONCE = 8, 8 * 224**2
# Of a sigmoid float32 cannot say how near to 1 it is: at a logit of 8 the 6e-8 between two numbers are 2e-4 of a logit,
# far below any tolerance, at 16 they are 0.5. Beyond 8, scores above 0.9997, sigmoids are not told apart.
LARGEST_SIGMOID_LOGIT = 8.0


@dataclass(frozen=True)
class Probe:
    """The pictures a gate compares on, prepared by a contract: (N, S, S, C) uint8, and where they are from."""

    name: str
    pictures: NDArray[np.uint8]


@dataclass(frozen=True)
class Gate:
    """The reference's outputs on the chosen pictures, computed once for every candidate.

    What it and the candidates answer is of the same form; probabilities are compared as the logits they are made of.

    Raises:
        ArtifactError: they are not finite, so nothing can be compared with them; says of how many pictures.
    """

    backend: str
    probe: Probe
    answers: NDArray[np.float32]

    def __post_init__(self) -> None:
        if unusable := int((~are_finite(self.answers)).sum()):
            raise not_finite("The network itself", unusable, len(self.answers))

    def check(self, candidate: Runner, name: str, precision: Precision) -> Parity:
        """Compare a candidate with the reference.

        Raises:
            VerdictError: it failed; carries the numbers.
        """
        contract = candidate.contract
        outputs = all_outputs(candidate, self.probe.pictures)
        answers = outputs[contract.form.output]
        if unusable := int((~are_finite(answers)).sum()):
            raise VerdictError(
                f"{name} answers {unusable} of {len(answers)} pictures of {self.probe.name} with logits that are not "
                "finite; the checkpoint does not.",
                f"Nothing was written. {precision.id} is too narrow for this network: export it in another precision.",
            )
        names = (self.backend, candidate.backend, self.probe.name)
        parity = judge(
            _comparable(self.answers, contract),
            _comparable(answers, contract),
            precision.tolerance,
            names=names,
            thresholds=contract.thresholds,
        )
        if parity.passed:
            _check_top(outputs, contract, name)
            return parity
        raise VerdictError(
            f"{name} differs from the checkpoint on {self.probe.name}: {'; '.join(parity.failures)} "
            f"({parity.summary()}).",
            "Nothing was written. "
            + (
                "--calib D calibrates on other pictures, --keep BLOCK leaves it in float; "
                if precision.calibrated
                else ""
            )
            + "--data D compares on other pictures; --no-parity exports anyway and says so in the passport.",
        )


def choose_pictures(
    checkpoint: Checkpoint | None,
    preprocessing: Preprocessing,
    *,
    data: str | None = None,
    count: int = ExportOptions.num_pictures,
) -> Probe:
    """Choose real pictures, as close to those the network was trained for as can be had.

    The first of these: `data`; the val split that the checkpoint recorded, if it is still there (nothing is fetched
    from a recorded address, because anyone may have written it); two photographs that come with scikit-learn.

    Raises:
        DataError: `data` cannot be used, or none of its pictures can be decoded.
    """
    chosen = validation_pictures(checkpoint, data, preprocessing.channels)
    prepared, _, broken = load_prepared(chosen.head(count), preprocessing)
    if not len(prepared):
        raise DataError(f"None of {len(broken)} pictures of {chosen.name} can be decoded: {broken[0]}", "Pass --data.")
    return Probe(_public_name(chosen), prepared)


def validation_pictures(checkpoint: Checkpoint | None, data: str | None, channels: int = 3) -> Pictures:
    """The pictures that `choose_pictures` chooses from.

    Raises:
        DataError: `data` cannot be used.
    """
    return labelled_pictures(checkpoint, data) or sample_photographs(channels)


def labelled_pictures(checkpoint: Checkpoint | None, data: str | None) -> Pictures | None:
    """Those of `data`, or those that the checkpoint was validated on; None where it recorded none that are here.

    Raises:
        DataError: `data` cannot be used.
    """
    provenance = checkpoint.provenance if checkpoint else {}
    recorded, seed = provenance.get("data"), int(provenance.get("seed") or 0)
    if data:
        return open_val(data, seed=seed if was_recorded(data, recorded) else None)
    if recorded and (recorded == "digits" or Path(recorded).is_dir() or is_labels(recorded)):
        return open_val(recorded, seed=seed)
    return None


def _public_name(pictures: Pictures) -> str:
    """A folder's own name without its path: the name goes into the passport, which travels."""
    return Path(pictures.name).name


def infer_all(runner: Runner, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run (N, S, S, C) pictures in batches the runner can take: logits or probabilities (N, K)."""
    return np.concatenate([runner.infer(batch) for batch in _batches(runner, pictures)])


def all_outputs(runner: Runner, pictures: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """The same with every output by its name."""
    if runner.contract.form.topk is None:
        return {runner.contract.form.output: infer_all(runner, pictures)}
    found = [runner.outputs(batch) for batch in _batches(runner, pictures)]
    return {name: np.concatenate([outputs[name] for outputs in found]) for name in found[0]}


def _batches(runner: Runner, pictures: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    step = max(1, min(BATCH_SIZE, runner.max_batch_size or BATCH_SIZE, PIXELS_AT_ONCE // pictures.shape[1] ** 2))
    return (pictures[start : start + step] for start in range(0, len(pictures), step))


def _comparable(answers: NDArray[np.float32], contract: Contract) -> NDArray[np.float32]:
    """Outputs as what tolerances are shares of: logits."""
    logits = as_logits(answers, contract)
    if contract.form.output == "logits" or contract.thresholds is None:
        return logits
    return np.clip(logits, -LARGEST_SIGMOID_LOGIT, LARGEST_SIGMOID_LOGIT)


def _check_top(outputs: Mapping[str, NDArray[Any]], contract: Contract, name: str) -> None:
    """Check that the highest scores a candidate names are the highest of its own, and their classes theirs.

    Raises:
        VerdictError: they are not, on how many pictures.
    """
    if contract.form.topk is None:
        return
    every, scores, classes = (outputs[output] for output in (contract.form.output, TOP_SCORES, TOP_CLASSES))
    highest = -np.sort(-every, axis=1)[:, : contract.form.topk]
    known = classes.clip(0, every.shape[1] - 1)
    right = (scores == highest) & (classes == known) & (np.take_along_axis(every, known, axis=1) == scores)
    if wrong := int((~right.all(axis=1)).sum()):
        raise VerdictError(
            f"{name} names other highest classes than its own scores do, on {wrong} of {len(every)} pictures.",
            "Nothing was written. Leave --topk out: `zoo predict` and `zoo serve` find them from all scores.",
        )


def judge(
    reference: NDArray[np.float32],
    candidate: NDArray[np.float32],
    tolerance: Tolerance,
    *,
    names: tuple[str, str, str] = ("reference", "candidate", "pictures"),
    thresholds: Sequence[float] | None = None,
) -> Parity:
    """Judge logits (N, K) against logits (N, K); answers are the first class, or the labels above `thresholds` (K,).

    A picture with NaN or infinity in either fails the comparison and is left out of the errors. A constant zero
    reference has scale 1.
    """
    total, failures = len(reference), []
    finite = np.isfinite(reference).all(axis=1) & np.isfinite(candidate).all(axis=1)
    if not finite.all():
        failures.append(f"{total - finite.sum()} of {total} pictures get logits that are not finite")
    reference, candidate = reference[finite], candidate[finite]
    error = np.abs(candidate.astype(np.float64) - reference)
    largest, mean = float(error.max(initial=0.0)), float(error.mean()) if error.size else 0.0
    scale = float(np.abs(reference).max(initial=0.0)) or 1.0
    differs, preference = _differs(reference, candidate, thresholds)
    ties = differs & (preference <= tolerance.tie_margin * scale)
    for name, found, allowed in (("max", largest, tolerance.max_error), ("mean", mean, tolerance.mean_error)):
        if found / scale > allowed:
            failures.append(f"{name} error {found / scale:.2g} of the largest logit, allowed {allowed:.2g}")
    other = "another class" if thresholds is None else "other labels"
    wrong = int((differs & ~ties).sum())
    # A part of a picture is one: of 12 pictures 95 % would be all of them.
    if wrong > (most := ceil((1 - tolerance.least_agreement) * total)):
        failures.append(
            f"{wrong} of {total} pictures get {other}, beyond any tie" + (f", allowed {most}" if most else "")
        )
    if (found := cosine(reference, candidate)) < tolerance.least_cosine:
        failures.append(f"the logits' cosine is {found:.4f}, expected {tolerance.least_cosine:g}")
    return Parity(
        reference=names[0],
        candidate=names[1],
        pictures=names[2],
        n=total,
        scale=scale,
        max_abs_error=largest,
        mean_abs_error=mean,
        relative_max_error=largest / scale,
        relative_mean_error=mean / scale,
        top1_agreement=float((~differs).sum()) / total,
        ties=int(ties.sum()),
        tolerance=tolerance,
        failures=tuple(failures),
        compared="class" if thresholds is None else "labels",
    )


def cosine(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> float:
    """The cosine of all logits (N, K) of two networks, each class about the reference's mean; 1 of none.

    Without the mean, which is most of a logit where there are a thousand classes, it would be near 1 whatever happens.
    """
    mean = reference.mean(axis=0, dtype=np.float64) if len(reference) > 1 else 0.0
    first, second = (logits.astype(np.float64) - mean for logits in (reference, candidate))
    length = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / length if length else 1.0


def same_answers(
    reference: NDArray[np.float32], candidate: NDArray[np.float32], thresholds: Sequence[float] | None = None
) -> NDArray[np.bool_]:
    """Which of N pictures get the same answer; a tie that is decided otherwise is none. The arguments are `judge`'s."""
    return ~_differs(reference, candidate, thresholds)[0]


def _differs(
    reference: NDArray[np.float32], candidate: NDArray[np.float32], thresholds: Sequence[float] | None
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    if thresholds is None:
        return _class_differs(reference, candidate)
    return _labels_differ(reference, candidate, thresholds)


def _class_differs(
    reference: NDArray[np.float32], candidate: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which pictures get another first class, and how much the reference prefers its own: 0 where they agree."""
    expected, answered = reference.argmax(axis=1), candidate.argmax(axis=1)
    rows = np.arange(len(reference))
    preference = reference[rows, expected].astype(np.float64) - reference[rows, answered]
    return expected != answered, preference


def _labels_differ(
    reference: NDArray[np.float32], candidate: NDArray[np.float32], thresholds: Sequence[float]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which pictures get other labels, and how far the reference is from the threshold that is farthest from it of
    those that were crossed, as a logit: log(t / (1 − t)); a threshold of 0 or 1 is never crossed.
    """
    share = np.array(thresholds, np.float64)
    with np.errstate(divide="ignore"):
        border = np.log(share) - np.log1p(-share)
    other = (reference >= border) != (candidate >= border)
    return other.any(axis=1), np.where(other, np.abs(reference - border), 0.0).max(axis=1, initial=0.0)
