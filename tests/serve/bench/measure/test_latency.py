from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np
import pytest
from numpy.typing import NDArray

from export.contract import Contract
from serve.bench.measure.latency import (
    LatencyRow,
    OpenArtifact,
    check_answers,
    compare_latency,
    compare_rows,
    measure_picture,
    real_pictures,
)
from serve.bench.measure.runs import bench_latency
from serve.bench.measure.timing import Schedule
from serve.bench.options import LatencyOptions
from zoo.data.open import open_splits
from zoo.errors import VerdictError, ZooError
from zoo.machine import processor_name
from zoo.model.spec import Preprocessing
from zoo.results import summarize

QUICK = Schedule(warmup_ms=0, min_warmup_iterations=1, duration_ms=1, min_iterations=6, rounds=3)
DIGITS = tuple("0123456789")

Answer = Callable[[NDArray[np.uint8], int], NDArray[np.float32]]


def mean_brightness(pictures: NDArray[np.uint8], call: int) -> NDArray[np.float32]:
    """A deterministic classifier of ten classes."""
    means = pictures.reshape(len(pictures), -1).mean(axis=1, dtype=np.float32)
    return means[:, None] * np.linspace(1, 2, 10, dtype=np.float32)


@dataclass
class CountingRunner:
    """A runner that says what it is told and remembers the batches it was given."""

    answer: Answer = mean_brightness
    artifact: str = "folder/fake.onnx"
    backend: str = "fake 1.0"
    device: str = "CPU"
    temperature: float | None = None
    max_batch_size: int | None = None
    threads: int | None = 2
    contract: Contract = field(
        default_factory=lambda: Contract(model="tiny", classes=DIGITS, preprocessing=Preprocessing(image_size=8))
    )
    batches: list[int] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    closed: bool = False

    def infer(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(pictures))
        self.log.append(self.artifact)
        return self.answer(pictures, len(self.batches))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed = True


PICTURES = real_pictures(CountingRunner().contract, 4)[0]


def opened(runner: CountingRunner) -> OpenArtifact:
    return OpenArtifact(name=runner.artifact, runner=runner, pictures=PICTURES)


def measure(runner: CountingRunner, batch_sizes: Sequence[int]) -> list[LatencyRow]:
    return list(compare_latency([opened(runner)], batch_sizes=batch_sizes, schedule=QUICK))


def test_every_batch_size_is_checked_then_timed() -> None:
    runner = CountingRunner()
    rows = measure(runner, [1, 6])
    assert [row.batch_size for row in rows] == [1, 6]
    for row in rows:
        assert row.latency.n >= 6
        assert len(row.round_p50_ms) == 3
        assert row.pictures_per_second > 0
        assert row.max_difference == 0.0
        # Two looks, one warm-up per round, and the samples: nothing runs that is not accounted for.
        assert runner.batches.count(row.batch_size) == 2 + 3 + row.latency.n


def test_throughput_is_pictures_over_the_time_of_the_loops() -> None:
    (row,) = measure(CountingRunner(), [4])
    # One batch in flight: the loop can be no faster than its calls.
    assert row.pictures_per_second <= 4 * 1000 / row.latency.mean_ms


def test_a_batch_larger_than_the_pictures_starts_again() -> None:
    batch = opened(CountingRunner()).batch(6)
    assert batch.shape == (6, 8, 8, 3)
    assert batch.flags.c_contiguous
    np.testing.assert_array_equal(batch[4:], batch[:2])


def test_artifacts_take_turns() -> None:
    log: list[str] = []
    runners = [CountingRunner(artifact=name, log=log) for name in ("a", "b")]
    once = Schedule(warmup_ms=0, min_warmup_iterations=1, duration_ms=1e-9, min_iterations=3, rounds=3)
    list(compare_latency([opened(runner) for runner in runners], batch_sizes=[1], schedule=once))
    # After two looks at each: warm-up and sample of a, of b, and again, for three rounds.
    assert "".join(log) == "aabb" + "aabb" * 3


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (lambda pictures, call: np.full((len(pictures), 10), np.nan, np.float32), "NaN"),
        (lambda pictures, call: np.zeros((len(pictures), 9), np.float32), r"\(2, 9\), expected \(2, 10\)"),
        (lambda pictures, call: np.full((len(pictures), 10), float(call), np.float32), "differently from call to call"),
    ],
    ids=["not finite", "misshapen", "not repeatable"],
)
def test_a_wrong_answer_is_not_timed(answer: Answer, problem: str) -> None:
    runner = CountingRunner(answer)
    with pytest.raises(VerdictError, match=problem) as error:
        measure(runner, [2])
    assert error.value.exit_code == 3
    assert "not timed" in error.value.hint
    assert len(runner.batches) == 2


def test_rounding_noise_between_calls_is_allowed_and_recorded() -> None:
    def noisy(pictures: NDArray[np.uint8], call: int) -> NDArray[np.float32]:
        return mean_brightness(pictures, call) * np.float32(1 + 1e-5 * call)

    difference = check_answers(opened(CountingRunner(noisy)), PICTURES)
    assert difference == pytest.approx(1e-5, rel=0.1)


def test_a_batch_above_the_engines_profile_is_refused_before_anything_runs() -> None:
    runner = CountingRunner(max_batch_size=4)
    with pytest.raises(ZooError, match="at most 4 pictures") as error:
        measure(runner, [1, 8])
    assert "--batch-size 4" in error.value.hint
    assert not runner.batches


def test_the_pictures_fit_the_classes() -> None:
    digits, source = real_pictures(CountingRunner().contract, 5)
    assert source == "digits"
    assert (digits.shape, digits.dtype) == ((5, 8, 8, 3), np.uint8)
    assert open_splits("digits")[1].classes == DIGITS
    imagenet = Contract(model="s", classes=("cat", "dog"), preprocessing=Preprocessing(image_size=32))
    photographs, source = real_pictures(imagenet, 3)
    assert source == "sample photographs"
    assert photographs.shape == (3, 32, 32, 3)
    assert photographs.std() > 10


def test_what_comes_before_the_network_is_timed_apart() -> None:
    said = measure_picture(Preprocessing(image_size=64), QUICK)
    assert (said.width_px, said.height_px, said.image_size) == (640, 427, 64)
    assert said.decode.n >= 6
    assert said.prepare.n >= 6
    assert said.encoded_bytes > 10_000


def a_row(artifact: str, rounds: tuple[float, ...], batch_size: int = 1) -> LatencyRow:
    return LatencyRow(
        artifact=artifact,
        batch_size=batch_size,
        latency=summarize(rounds),
        pictures_per_second=1.0,
        round_p50_ms=rounds,
        max_difference=0.0,
    )


def test_comparison_is_with_the_first_artifact_at_the_same_batch() -> None:
    rows = [
        a_row("a", (4.0, 4.1, 4.2)),
        a_row("b", (2.0, 2.1, 2.2)),
        a_row("a", (9.0, 9.1, 9.9), 8),
        a_row("b", (9.5, 9.6, 9.7), 8),
    ]
    small, large = compare_rows(rows)
    assert (small.artifact, small.baseline, small.batch_size) == ("b", "a", 1)
    assert small.speedup == pytest.approx(4.1 / 2.1)
    assert small.separated is True
    assert large.separated is False
    assert LatencyRow.from_dict(rows[0].to_dict()) == rows[0]


def test_a_run_opens_and_closes_every_artifact_and_names_the_processor() -> None:
    opened: dict[str, CountingRunner] = {}

    def open_fake(artifact: str, **options: object) -> CountingRunner:
        assert options == {"device": "cpu", "threads": 2, "backend": "auto"}
        return opened.setdefault(artifact, CountingRunner(artifact=artifact, max_batch_size=4))

    options = LatencyOptions(artifacts=("x/s.onnx", "y/s.onnx"), device="cpu", threads=2)
    result = bench_latency(options, schedule=QUICK, open_artifact=open_fake)
    assert all(runner.closed for runner in opened.values())
    assert result.name == "x/s.onnx vs y/s.onnx"  # the same file name in both: the folders tell them apart
    assert result.device == processor_name()
    assert result.settings["batch_sizes"] == [1, 4]  # 8 is above what these take
    assert [row["batch_size"] for row in result.data["rows"]] == [1, 1, 4, 4]
    assert all(row["latency"]["n"] >= 6 for row in result.data["rows"])
    assert result.data["gpu"] is None
    assert "not an NVIDIA GPU" in result.data["gpu_reason"]


def test_an_artifact_that_fails_leaves_the_others_closed() -> None:
    runner = CountingRunner()

    def open_fake(artifact: str, **options: object) -> CountingRunner:
        if artifact == "second":
            raise ZooError("no such artifact")
        return runner

    with pytest.raises(ZooError, match="no such artifact"):
        bench_latency(LatencyOptions(artifacts=("first", "second")), schedule=QUICK, open_artifact=open_fake)
    assert runner.closed
