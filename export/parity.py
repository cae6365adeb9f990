"""Owns the gate between an artifact and its reference: the same real pictures through both, and a verdict.

It knows only the `Runner` seam, so every back end is compared by the same loop; it chooses no back end.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from export.precision.rows import Tolerance
from export.runners.runner import Runner
from zoo.data.digits import sample_photographs
from zoo.data.open import open_val, was_recorded
from zoo.data.pictures import Pictures, load_prepared
from zoo.errors import DataError
from zoo.model.spec import Preprocessing

if TYPE_CHECKING:
    from zoo.weights.checkpoint import Checkpoint

# Enough for every class of a small data set, few enough for a large network on a CPU: 64 of S at 384 px are
# 64 · 8.4 = 540 GMACs, some ten seconds on two cores.
NUM_PICTURES = 64
BATCH_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What one comparison found.

    Errors are of logits; `relative_…` are shares of `scale`, the largest absolute reference logit.
    `top1_agreement` is the plain share of pictures with the same first class; `ties` of those that differ are
    pictures on which the reference itself hardly prefers one (see `Tolerance`); `failures` names every bound that
    broke, empty if it passed.
    """

    reference: str
    candidate: str
    pictures: str
    n: int
    scale: float
    max_abs_error: float
    mean_abs_error: float
    relative_max_error: float
    relative_mean_error: float
    top1_agreement: float
    ties: int
    tolerance: Tolerance
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Every bound held."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self) | {"failures": list(self.failures), "passed": self.passed}

    def summary(self) -> str:
        """One line for people."""
        ties = f" ({self.ties} of the others are ties)" if self.ties else ""
        return (
            f"max error {self.max_abs_error:.1e}, mean {self.mean_abs_error:.1e} of logits up to {self.scale:.3g}; "
            f"same class on {self.top1_agreement:.1%} of {self.n}{ties}"
        )


@dataclass(frozen=True)
class Probe:
    """The pictures a gate compares on, prepared by a contract: (N, S, S, 3) uint8, and where they are from."""

    name: str
    pictures: NDArray[np.uint8]


def choose_pictures(
    card: Checkpoint | None, preprocessing: Preprocessing, *, data: str | None = None, count: int = NUM_PICTURES
) -> Probe:
    """Choose real pictures, the closest to the network's own first.

    In this order: `data`; the val split the checkpoint says it was trained beside, if that is still there (nothing is
    fetched from an address in it: it may be anyone's); two photographs that come with scikit-learn.

    Raises:
        DataError: `data` cannot be used, or none of its pictures can be decoded.
    """
    provenance = card.provenance if card else {}
    recorded, seed = provenance.get("data"), int(provenance.get("seed") or 0)
    if data:
        chosen = open_val(data, seed=seed if was_recorded(data, recorded) else None)
    elif recorded and (recorded == "digits" or Path(recorded).is_dir()):
        chosen = open_val(recorded, seed=seed)
    else:
        chosen = sample_photographs()
    prepared, _, broken = load_prepared(chosen.head(count), preprocessing)
    if not len(prepared):
        raise DataError(f"None of {len(broken)} pictures of {chosen.name} can be decoded: {broken[0]}", "Pass --data.")
    return Probe(_public_name(chosen), prepared)


def _public_name(pictures: Pictures) -> str:
    """A folder's own name without its path: the name goes into the passport, which travels."""
    return Path(pictures.name).name


def infer_all(runner: Runner, pictures: NDArray[np.uint8], *, batch_size: int = BATCH_SIZE) -> NDArray[np.float32]:
    """Run (N, S, S, 3) pictures in batches the runner can take: logits (N, K)."""
    step = min(batch_size, runner.max_batch_size or batch_size)
    return np.concatenate([runner.infer(pictures[start : start + step]) for start in range(0, len(pictures), step)])


def compare(reference: Runner, candidate: Runner, probe: Probe, tolerance: Tolerance) -> Parity:
    """Run the same pictures through both and judge the candidate."""
    return judge(
        infer_all(reference, probe.pictures),
        infer_all(candidate, probe.pictures),
        tolerance,
        names=(reference.backend, candidate.backend, probe.name),
    )


def judge(
    reference: NDArray[np.float32],
    candidate: NDArray[np.float32],
    tolerance: Tolerance,
    *,
    names: tuple[str, str, str] = ("reference", "candidate", "pictures"),
) -> Parity:
    """Judge logits (N, K) against logits (N, K).

    NaN or infinity in either fails every bound on errors. A constant zero reference has scale 1.
    """
    error = np.abs(candidate.astype(np.float64) - reference)
    scale = float(np.abs(reference).max()) or 1.0
    rows = np.arange(len(reference))
    expected, answered = reference.argmax(axis=1), candidate.argmax(axis=1)
    # How much the reference prefers its own answer to the candidate's: 0 where they agree.
    preference = reference[rows, expected] - reference[rows, answered]
    differs = expected != answered
    ties = differs & (preference <= tolerance.tie_margin * scale)
    relative_max, relative_mean = float(error.max()) / scale, float(error.mean()) / scale
    failures = []
    if not relative_max <= tolerance.max_error:  # `not <=`, so that NaN fails
        failures.append(f"max error {relative_max:.2g} of the largest logit, allowed {tolerance.max_error:.2g}")
    if not relative_mean <= tolerance.mean_error:
        failures.append(f"mean error {relative_mean:.2g} of the largest logit, allowed {tolerance.mean_error:.2g}")
    wrong = int((differs & ~ties).sum())
    if wrong:
        failures.append(f"{wrong} of {len(rows)} pictures get another class, beyond any tie")
    reference_name, candidate_name, pictures_name = names
    return Parity(
        reference=reference_name,
        candidate=candidate_name,
        pictures=pictures_name,
        n=len(rows),
        scale=scale,
        max_abs_error=float(error.max()),
        mean_abs_error=float(error.mean()),
        relative_max_error=relative_max,
        relative_mean_error=relative_mean,
        top1_agreement=float(1.0 - differs.mean()),
        ties=int(ties.sum()),
        tolerance=tolerance,
        failures=tuple(failures),
    )
