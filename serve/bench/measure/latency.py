"""Owns the latency of artifacts as a client sees it: real pictures in, logits out, one batch in flight.

What is timed is `Runner.infer` on the host's clock, so copies to and from a GPU are inside. It never times an artifact
whose answers it has not checked, and it knows no back end.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from export.contract import Contract
from export.runners.runner import Runner
from serve.bench.measure.timing import Samples, Schedule, pooled, time_call, time_in_turn
from zoo.data.decode import open_picture
from zoo.data.digits import sample_photographs
from zoo.data.open import open_splits
from zoo.data.pictures import Pictures, load_prepared
from zoo.data.preprocess import prepare
from zoo.errors import VerdictError, ZooError
from zoo.model.spec import Preprocessing
from zoo.results import Summary, summarize
from zoo.rows import Count, NotNegative, Positive, Row, Some, Text
from zoo.wording import joined

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


@dataclass(frozen=True, kw_only=True)
class TimedArtifact(Row):
    """What was timed: the runner's own words, and what its contract says."""

    artifact: Text
    model: Text
    backend: Text
    device: Text
    image_size: Count
    num_classes: Count


@dataclass(frozen=True, kw_only=True)
class LatencyRow(Row):
    """One artifact at one batch size: milliseconds per batch, and pictures per second of one caller in a row.

    `round_p50_ms` are the medians of the rounds, which show drift; `max_difference` is what two calls on the same
    batch differed by, as a share of the largest logit.
    """

    artifact: Text
    batch_size: Count
    latency: Summary
    pictures_per_second: Positive
    round_p50_ms: Annotated[tuple[NotNegative, ...], Some()]
    max_difference: NotNegative


@dataclass(frozen=True, kw_only=True)
class Comparison(Row):
    """How many times as fast an artifact is as the first one (`baseline`) at the same batch size, by their medians.

    `separated` says that the medians of their rounds do not overlap, so the difference is more than the spread.
    """

    batch_size: Count
    artifact: Text
    baseline: Text
    speedup: Positive
    separated: bool


@dataclass(frozen=True, kw_only=True)
class PictureTimes(Row):
    """What happens before the artifact: decoding one file, and resizing it by the contract to `image_size` pixels."""

    source: Text
    width_px: Count
    height_px: Count
    encoded_bytes: Count
    image_size: Count
    decode: Summary
    prepare: Summary
    format: Literal["JPEG", "PNG"] = "JPEG"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; of a JPEG they are those of the first version."""
        fields = super().to_dict()
        if self.format == "JPEG":
            del fields["format"]
        return fields


@dataclass(frozen=True, kw_only=True)
class LatencyData(Row):
    """The data of a result of `zoo bench latency`: artifacts timed in turn in one call."""

    artifacts: Annotated[tuple[TimedArtifact, ...], Some()]
    rows: Annotated[tuple[LatencyRow, ...], Some()]
    comparisons: tuple[Comparison, ...]
    picture: PictureTimes
    gpu: Mapping[str, Any] | None
    gpu_reason: str

    def rows_of(self, artifact: str) -> list[LatencyRow]:
        """One artifact's rows, smallest batch first."""
        return sorted((row for row in self.rows if row.artifact == artifact), key=lambda row: row.batch_size)


def compare_latency(
    artifacts: Sequence[OpenArtifact],
    *,
    batch_sizes: Sequence[int],
    schedule: Schedule,
    on_progress: Callable[[str], None] = lambda line: None,
) -> Iterator[LatencyRow]:
    """Check every artifact, then time all of them in turn (A B A B…) at each batch size.

    Raises:
        ZooError: a batch size that an artifact does not take.
        VerdictError: an artifact whose answers are not finite, misshapen, or change from call to call.
    """
    for artifact in artifacts:
        limit = artifact.runner.max_batch_size
        if limit is not None and max(batch_sizes) > limit:
            raise ZooError(
                f"{artifact.name} takes at most {limit} pictures at once, not {max(batch_sizes)}.",
                f"Pass --batch-size {limit} or less, or export it with a larger profile.",
            )
    for size in batch_sizes:
        batches = [artifact.batch(size) for artifact in artifacts]
        differences = []
        for artifact, batch in zip(artifacts, batches, strict=True):
            on_progress(f"{artifact.name}, batch {size}: checking the answers")
            differences.append(check_answers(artifact, batch))
        on_progress(f"batch {size}: timing {joined(artifact.name for artifact in artifacts)}")
        calls = [partial(artifact.runner.infer, batch) for artifact, batch in zip(artifacts, batches, strict=True)]
        visits = time_in_turn(calls, schedule)
        for artifact, of_artifact, difference in zip(artifacts, visits, differences, strict=True):
            yield _row(artifact.name, size, of_artifact, difference)


def check_answers(artifact: OpenArtifact, batch: NDArray[np.uint8]) -> float:
    """Call twice before anything is timed: a fast wrong answer is no answer.

    Returns:
        The largest difference between the two calls, as a share of the largest logit.

    Raises:
        VerdictError: misshapen, not finite, or not repeatable.
    """
    expected = (len(batch), len(artifact.runner.contract.classes))
    first, second = (np.array(artifact.runner.infer(batch)) for _ in range(2))
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


def real_pictures(contract: Contract, count: int = 16) -> tuple[NDArray[np.uint8], str]:
    """Real pictures by an artifact's contract, and what they are: digits for a digit classifier, else photographs."""
    digits = open_splits("digits")[1]
    channels = contract.preprocessing.channels  # digits have no fourth plane
    is_digits = contract.classes == digits.classes and channels != 4
    chosen: Pictures = digits if is_digits else sample_photographs(channels)
    prepared, _, _ = load_prepared(chosen.head(count), contract.preprocessing)
    return prepared, chosen.name


def measure_picture(preprocessing: Preprocessing, schedule: Schedule | None = None) -> PictureTimes:
    """Time what happens before the artifact, on the host's processor, one thread.

    The picture is scikit-learn's photograph `china.jpg`, 640 × 427 pixels; for four planes it is a PNG of it.
    """
    encoded, format = _photograph(preprocessing.channels)
    decode_it = partial(open_picture, encoded, channels=preprocessing.channels)
    image = decode_it()
    decode, resize = time_in_turn(
        [decode_it, partial(prepare, image, preprocessing)],
        schedule or Schedule(duration_ms=500.0, rounds=1),
        time_call,
    )
    return PictureTimes(
        source="china.jpg of scikit-learn",
        width_px=image.width,
        height_px=image.height,
        encoded_bytes=len(encoded),
        image_size=preprocessing.image_size,
        decode=summarize(pooled(decode)),
        prepare=summarize(pooled(resize)),
        format=format,
    )


def _photograph(channels: int) -> tuple[bytes, Literal["JPEG", "PNG"]]:
    """The photograph as a file with so many planes, and its format: of four the last is its grey."""
    encoded = resources.files("sklearn.datasets.images").joinpath("china.jpg").read_bytes()
    if channels != 4:
        return encoded, "JPEG"
    image, buffer = open_picture(encoded), io.BytesIO()
    image.putalpha(image.convert("L"))
    image.save(buffer, "PNG")
    return buffer.getvalue(), "PNG"


def compare_rows(rows: Sequence[LatencyRow]) -> tuple[Comparison, ...]:
    """Compare every artifact with the first one at each batch size."""
    comparisons = []
    for row in rows:
        base = next(other for other in rows if other.batch_size == row.batch_size)
        if base is not row:
            fast, slow = sorted((base.round_p50_ms, row.round_p50_ms), key=min)
            comparisons.append(
                Comparison(
                    batch_size=row.batch_size,
                    artifact=row.artifact,
                    baseline=base.artifact,
                    speedup=base.latency.p50_ms / row.latency.p50_ms,
                    separated=max(fast) < min(slow),
                )
            )
    return tuple(comparisons)


def _row(name: str, batch_size: int, visits: Sequence[Samples], difference: float) -> LatencyRow:
    samples = pooled(visits)
    seconds = sum(visit.wall_ms for visit in visits) / 1000.0
    return LatencyRow(
        artifact=name,
        batch_size=batch_size,
        latency=summarize(samples),
        pictures_per_second=len(samples) * batch_size / seconds,
        round_p50_ms=tuple(visit.median_ms for visit in visits),
        max_difference=difference,
    )
