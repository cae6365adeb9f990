"""Owns artifacts that are opened to be measured: the pictures they are fed, and the check of their answers before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.contract import Contract
from export.runners.runner import Runner
from serve.bench.measure.memory import check_batch
from zoo.data.digits import sample_photographs
from zoo.data.open import open_splits
from zoo.data.pictures import Pictures, load_prepared
from zoo.errors import VerdictError, ZooError
from zoo.measure.gpu_trace import is_gpu
from zoo.model.variants import VARIANTS

# Two calls on the same batch may differ by the order of additions in a GPU's kernels, never by more than this share
# of the largest logit.
REPEAT_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class OpenArtifact:
    """An opened artifact, the name it goes by, and the pictures it is fed: (N, S, S, C) uint8 by its own contract."""

    name: str
    runner: Runner
    pictures: NDArray[np.uint8]

    def batch(self, size: int) -> NDArray[np.uint8]:
        """The first `size` pictures, from the start again where there are fewer."""
        return np.ascontiguousarray(self.pictures[np.arange(size) % len(self.pictures)])


def check_answers(artifact: OpenArtifact, batch: NDArray[np.uint8]) -> float:
    """Call twice before anything is timed: a fast wrong answer is no answer.

    Returns:
        The largest difference between the two calls, as a share of the largest logit.

    Raises:
        ZooError: the back end fails, for want of memory. VerdictError: misshapen, not finite, or not repeatable.
    """
    expected = (len(batch), len(artifact.runner.contract.classes))
    try:
        first, second = (np.array(artifact.runner.infer(batch)) for _ in range(2))
    except ZooError:
        raise
    except Exception as error:  # each back end has a class of its own for memory that is full
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ZooError(
            f"{artifact.name} cannot answer {len(batch):,} pictures at once: {said}",
            "Pass a smaller --batch-size, or another --backend.",
        ) from error
    hint = "It was not timed. `zoo export` writes it again and compares it with its checkpoint."
    if first.shape != expected or second.shape != expected:
        raise VerdictError(f"{artifact.name} answers {first.shape}, expected {expected}.", hint)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        broken = int((~np.isfinite(first) | ~np.isfinite(second)).any(axis=1).sum())
        raise VerdictError(f"{artifact.name} answers NaN or infinity for {broken} of {len(batch)} pictures.", hint)
    difference = float(np.abs(first - second).max() / max(float(np.abs(first).max()), 1e-12))
    if difference > REPEAT_TOLERANCE:
        raise VerdictError(
            f"{artifact.name} answers the same pictures differently from call to call (by {difference:.1e} of the "
            f"largest logit, allowed {REPEAT_TOLERANCE:.0e}).",
            hint,
        )
    return difference


def check_memory(artifact: OpenArtifact, batch_size: int) -> None:
    """Refuse a batch before it is made that this machine has no memory for.

    Raises:
        ZooError: as `check_batch`.
    """
    contract = artifact.runner.contract
    check_batch(
        batch_size,
        contract.preprocessing.image_size,
        on="cuda" if is_gpu(artifact.runner.device) else "cpu",
        variant=next((variant for variant in VARIANTS if variant.id == contract.model), None),
        channels=contract.preprocessing.channels,
    )


def real_pictures(contract: Contract, count: int = 16) -> tuple[NDArray[np.uint8], str]:
    """Real pictures by an artifact's contract, and what they are: digits for a digit classifier, else photographs."""
    digits = open_splits("digits")[1]
    channels = contract.preprocessing.channels  # digits have no fourth plane
    is_digits = contract.classes == digits.classes and channels != 4
    chosen: Pictures = digits if is_digits else sample_photographs(channels)
    prepared, _, _ = load_prepared(chosen.head(count), contract.preprocessing)
    return prepared, chosen.name
