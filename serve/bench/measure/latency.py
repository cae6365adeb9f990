"""Owns the latency of artifacts as a client sees it: real pictures in, logits out, one batch in flight.

What is timed is `Runner.infer` on the host's clock, so copies to and from a GPU are inside. It never times an artifact
whose answers it has not checked, and it knows no back end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import resources
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from export.contract import Contract
from export.runners.runner import Runner
from serve.bench.measure.timing import Samples, Schedule, time_call, time_in_turn
from zoo.data.decode import open_picture
from zoo.data.digits import sample_photographs
from zoo.data.open import open_splits
from zoo.data.pictures import Pictures, load_prepared
from zoo.data.preprocess import prepare
from zoo.errors import VerdictError, ZooError
from zoo.model.spec import Preprocessing
from zoo.results import Summary, percentile, summarize

# Two calls on the same batch may differ by the order of additions in a GPU's kernels, never by more than this share
# of the largest logit.
REPEAT_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An opened artifact, the name it goes by, and the pictures it is fed: (N, S, S, 3) uint8 by its own contract."""

    name: str
    runner: Runner
    pictures: NDArray[np.uint8]

    def batch(self, size: int) -> NDArray[np.uint8]:
        """The first `size` pictures, from the start again where there are fewer."""
        return np.ascontiguousarray(self.pictures[np.arange(size) % len(self.pictures)])


@dataclass(frozen=True, kw_only=True)
class LatencyRow:
    """One artifact at one batch size: milliseconds per batch, and pictures per second of one caller in a row.

    `round_p50_ms` are the medians of the rounds, which show drift; `max_difference` is what two calls on the same
    batch differed by, as a share of the largest logit.
    """

    artifact: str
    batch_size: int
    latency: Summary
    pictures_per_second: float
    round_p50_ms: tuple[float, ...]
    max_difference: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self) | {"latency": self.latency.to_dict(), "round_p50_ms": list(self.round_p50_ms)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        typed = {"latency": Summary.from_dict(fields["latency"]), "round_p50_ms": tuple(fields["round_p50_ms"])}
        return cls(**{**fields, **typed})


def measure_latency(
    runner: Runner, pictures: NDArray[np.uint8], *, batch_sizes: Sequence[int], schedule: Schedule | None = None
) -> list[LatencyRow]:
    """Measure one artifact; see `compare_latency`."""
    subject = Subject(name=runner.artifact, runner=runner, pictures=pictures)
    return list(compare_latency([subject], batch_sizes=batch_sizes, schedule=schedule))


def compare_latency(
    subjects: Sequence[Subject],
    *,
    batch_sizes: Sequence[int],
    schedule: Schedule | None = None,
    on_progress: Callable[[str], None] = lambda line: None,
) -> Iterator[LatencyRow]:
    """Check every artifact, then time all of them in turn (A B A B…) at each batch size.

    Raises:
        ZooError: a batch size that an artifact does not take.
        VerdictError: an artifact whose answers are not finite, misshapen, or change from call to call.
    """
    for subject in subjects:
        limit = subject.runner.max_batch_size
        if limit is not None and max(batch_sizes) > limit:
            raise ZooError(
                f"{subject.name} takes at most {limit} pictures at once, not {max(batch_sizes)}.",
                f"Pass --batch-size {limit} or less, or export it with a larger profile.",
            )
    for size in batch_sizes:
        batches = [subject.batch(size) for subject in subjects]
        differences = []
        for subject, batch in zip(subjects, batches, strict=True):
            on_progress(f"{subject.name}, batch {size}: checking the answers")
            differences.append(check_answers(subject, batch))
        on_progress(f"batch {size}: timing {' and '.join(subject.name for subject in subjects)}")
        calls = [partial(subject.runner.infer, batch) for subject, batch in zip(subjects, batches, strict=True)]
        visits = time_in_turn(calls, schedule or Schedule())
        for subject, of_subject, difference in zip(subjects, visits, differences, strict=True):
            yield _row(subject.name, size, of_subject, difference)


def check_answers(subject: Subject, batch: NDArray[np.uint8]) -> float:
    """Call twice before anything is timed: a fast wrong answer is no answer.

    Returns:
        The largest difference between the two calls, as a share of the largest logit.

    Raises:
        VerdictError: misshapen, not finite, or not repeatable.
    """
    expected = (len(batch), len(subject.runner.contract.classes))
    first, second = (np.array(subject.runner.infer(batch)) for _ in range(2))
    hint = "It was not timed. `zoo export` writes it again and compares it with its checkpoint."
    if first.shape != expected or second.shape != expected:
        raise VerdictError(f"{subject.name} answers {first.shape}, expected {expected}.", hint)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        broken = int((~np.isfinite(first) | ~np.isfinite(second)).any(axis=1).sum())
        raise VerdictError(f"{subject.name} answers NaN or infinity for {broken} of {len(batch)} pictures.", hint)
    difference = float(np.abs(first - second).max() / max(float(np.abs(first).max()), 1e-12))
    if difference > REPEAT_TOLERANCE:
        raise VerdictError(
            f"{subject.name} answers the same pictures differently from call to call (by {difference:.1e} of the "
            f"largest logit, allowed {REPEAT_TOLERANCE:.0e}).",
            hint,
        )
    return difference


def real_pictures(contract: Contract, count: int = 16) -> tuple[NDArray[np.uint8], str]:
    """Real pictures by an artifact's contract, and what they are: digits for a digit classifier, else photographs."""
    digits = open_splits("digits")[1]
    chosen: Pictures = digits if contract.classes == digits.classes else sample_photographs()
    prepared, _, _ = load_prepared(chosen.head(count), contract.preprocessing)
    return prepared, chosen.name


def measure_picture(preprocessing: Preprocessing, schedule: Schedule | None = None) -> dict[str, Any]:
    """Time what happens before the artifact: decoding one JPEG photograph, and resizing it by the contract.

    The photograph is scikit-learn's `china.jpg`, 640 × 427 pixels; on the host's processor, one thread.
    """
    encoded = resources.files("sklearn.datasets.images").joinpath("china.jpg").read_bytes()
    image = open_picture(encoded)
    decode, resize = time_in_turn(
        [partial(open_picture, encoded), partial(prepare, image, preprocessing)],
        schedule or Schedule(duration_ms=500.0, rounds=1),
        time_call,
    )
    return {
        "source": "china.jpg of scikit-learn",
        "width_px": image.width,
        "height_px": image.height,
        "encoded_bytes": len(encoded),
        "image_size": preprocessing.image_size,
        "decode": summarize(_pooled(decode)).to_dict(),
        "prepare": summarize(_pooled(resize)).to_dict(),
    }


def compare_rows(rows: Sequence[LatencyRow]) -> list[dict[str, Any]]:
    """How many times as fast each artifact is as the first one at the same batch size, by their medians.

    `separated` says that the medians of their rounds do not overlap, so the difference is more than the spread.
    """
    comparisons = []
    for row in rows:
        base = next(other for other in rows if other.batch_size == row.batch_size)
        if base is row:
            continue
        apart = max(row.round_p50_ms) < min(base.round_p50_ms) or max(base.round_p50_ms) < min(row.round_p50_ms)
        comparisons.append(
            {
                "batch_size": row.batch_size,
                "artifact": row.artifact,
                "baseline": base.artifact,
                "speedup": base.latency.p50_ms / row.latency.p50_ms,
                "separated": apart,
            }
        )
    return comparisons


def _row(name: str, batch_size: int, visits: Sequence[Samples], difference: float) -> LatencyRow:
    samples = _pooled(visits)
    seconds = sum(visit.wall_ms for visit in visits) / 1000.0
    return LatencyRow(
        artifact=name,
        batch_size=batch_size,
        latency=summarize(samples),
        pictures_per_second=len(samples) * batch_size / seconds,
        round_p50_ms=tuple(percentile(sorted(visit.ms), 50) for visit in visits),
        max_difference=difference,
    )


def _pooled(visits: Sequence[Samples]) -> list[float]:
    return [sample for visit in visits for sample in visit.ms]
