from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np
import pytest
from numpy.typing import NDArray

from export.contract import Contract
from export.runners.apart import Parts
from serve.bench.measure.latency import LatencyPlan, Time, measure_latency
from serve.bench.measure.latency_data import LatencyRow, Turn, compare_rows
from serve.bench.measure.latency_run import bench_latency
from serve.bench.measure.opened import OpenArtifact, check_answers, real_pictures
from serve.bench.measure.picture import measure_picture
from serve.bench.options import LatencyOptions
from tests.serve.bench.measure.simulated import BUSY, FakeWatch, HostClock
from zoo.data.open import open_splits
from zoo.errors import VerdictError, ZooError
from zoo.machine import processor_name
from zoo.measure.timing import Schedule
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
    spend: Callable[[int], None] = lambda count: None

    def infer(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.spend(len(pictures))
        self.batches.append(len(pictures))
        self.log.append(self.artifact)
        return self.answer(pictures, len(self.batches))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed = True


UNWATCHED = Time(watch=FakeWatch())
PICTURES = real_pictures(CountingRunner().contract, 4)[0]


def opened(runner: CountingRunner) -> OpenArtifact:
    return OpenArtifact(name=runner.artifact, runner=runner, pictures=PICTURES)


def measure(runner: CountingRunner, batch_sizes: Sequence[int]) -> list[LatencyRow]:
    plan = LatencyPlan(schedule=QUICK, batch_sizes=tuple(batch_sizes))
    return [row for _, rows in measure_latency([opened(runner)], plan, when=UNWATCHED) for row in rows]


def test_every_batch_size_is_checked_then_timed() -> None:
    runner = CountingRunner()
    plan = LatencyPlan(schedule=QUICK, batch_sizes=(1, 6))
    measured = list(measure_latency([opened(runner)], plan, when=UNWATCHED))
    assert [row.batch_size for _, rows in measured for row in rows] == [1, 6]
    for turn, (row,) in measured:
        assert row.latency.n >= 3
        assert len(row.round_p50_ms) == 3
        assert row.pictures_per_second > 0
        assert row.max_difference == 0.0
        # Two looks, the warm-up, one call before each round, and the samples: nothing runs that is not accounted for.
        warm_up = turn.rounds.track(row.artifact).warm_up.iterations
        assert runner.batches.count(row.batch_size) == 2 + warm_up + 3 + row.latency.n


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
    plan = LatencyPlan(schedule=once, batch_sizes=(1,))
    ((turn, _),) = measure_latency([opened(runner) for runner in runners], plan, when=UNWATCHED)
    warm_ups = [turn.rounds.track(name).warm_up.iterations for name in ("a", "b")]
    # After two looks at each and their warm-ups: a call before and a sample of a, of b, and again, for three rounds.
    assert "".join(log) == "aabb" + "a" * warm_ups[0] + "b" * warm_ups[1] + "aabb" * 3


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


def test_a_batch_that_no_memory_holds_is_refused_before_anything_runs() -> None:
    """The system would end the process, or another one, and with it what was measured before."""
    runner = CountingRunner()
    with pytest.raises(ZooError, match=r"1,000,000,000,000 pictures of 8 px at once"):
        measure(runner, [1, 10**12])
    assert runner.batches == []


def test_a_back_end_that_fails_at_a_batch_says_at_which() -> None:
    def fail(pictures: NDArray[np.uint8], call: int) -> NDArray[np.float32]:
        raise MemoryError("cannot allocate 4 GB\nat allocator.cpp")

    with pytest.raises(ZooError, match=r"cannot answer 4 pictures at once: cannot allocate 4 GB Pass") as error:
        measure(CountingRunner(answer=fail), [4])
    assert "--batch-size" in error.value.hint


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
    assert all(row["latency"]["n"] >= 3 for row in result.data["rows"])
    assert result.data["gpu"] is None
    assert "not an NVIDIA GPU" in result.data["gpu_reason"]


def test_an_artifact_named_twice_is_two_things_that_take_turns() -> None:
    """Else a comparison of equal artifacts would be one of a thing with itself: even, whatever the machine does."""
    opened: list[CountingRunner] = []

    def open_fake(artifact: str, **options: object) -> CountingRunner:
        opened.append(CountingRunner(artifact=artifact))
        return opened[-1]

    result = bench_latency(
        LatencyOptions(artifacts=("s.onnx", "s.onnx"), batch_sizes=(1,)), schedule=QUICK, open_artifact=open_fake
    )
    assert result.name == "s.onnx vs s.onnx (2)"
    assert len(opened) == 2
    (turn,) = result.data["turns"]
    assert [track["name"] for track in turn["rounds"]["tracks"]] == ["s.onnx", "s.onnx (2)"]


def test_an_artifact_that_fails_leaves_the_others_closed() -> None:
    runner = CountingRunner()

    def open_fake(artifact: str, **options: object) -> CountingRunner:
        if artifact == "second":
            raise ZooError("no such artifact")
        return runner

    with pytest.raises(ZooError, match="no such artifact"):
        bench_latency(LatencyOptions(artifacts=("first", "second")), schedule=QUICK, open_artifact=open_fake)
    assert runner.closed


def served(
    scenario: str, runner: CountingRunner, clock: HostClock, **plan: object
) -> Iterator[tuple[Turn, LatencyRow]]:
    """A runner on a simulated clock in a scenario."""
    schedule = Schedule(warmup_ms=10, duration_ms=30_000, min_iterations=10, rounds=10)
    made = LatencyPlan.from_dict({"schedule": schedule.to_dict(), "scenario": scenario, **plan})
    when = Time(
        clock=clock,
        sleep=lambda seconds: clock.pass_ms(1000 * seconds),
        wait=lambda moment: clock.pass_ms((moment - clock()) / 1e6),
        watch=FakeWatch(),
    )
    for turn, (row,) in measure_latency([opened(runner)], made, when=when):
        yield turn, row


def a_runner_of(clock: HostClock, ms: float, each: float = 0.0) -> CountingRunner:
    """A runner that takes `ms` for a call and `each` for every picture in it."""
    return CountingRunner(spend=lambda count: clock.pass_ms(ms + each * count))


def test_a_server_answers_at_random_arrivals_and_says_whether_it_keeps_up() -> None:
    clock = HostClock()
    runner = a_runner_of(clock, 8.0, 2.0)
    calm, flooded = [row for _, row in served("server", runner, clock, batch_sizes=[1], rates=[50, 400])]
    assert calm.keeps_up
    assert not flooded.keeps_up
    assert flooded.pictures_per_second == pytest.approx(100, rel=0.05)
    assert calm.pictures_per_second == pytest.approx(50, rel=0.15)
    assert calm.latency.min_ms == pytest.approx(10)
    # Half of the time the runner is busy when a picture comes: M/D/1 with load ρ = 0.5 waits ρ/(2(1-ρ)) = 0.5 services.
    assert calm.latency.mean_ms == pytest.approx(15, rel=0.1)


def test_a_server_takes_what_waits_at_once_and_chooses_rates_by_the_slowest_artifact() -> None:
    clock = HostClock()
    found = [row for _, row in served("server", a_runner_of(clock, 8.0, 2.0), clock, batch_sizes=[4])]
    assert [row.offered_per_second for row in found] == [125, 200, 238]  # 4 in 16 ms are 250 a second
    assert all(row.keeps_up for row in found)
    batches = [row.mean_batch for row in found]
    assert batches == sorted(batches)
    assert 1 < batches[0] < batches[-1] <= 4


def test_queries_and_floods_are_one_batch_after_the_other() -> None:
    for scenario in ("multi_stream", "offline"):
        clock = HostClock()
        ((turn, row),) = served(scenario, a_runner_of(clock, 8.0, 2.0), clock, batch_sizes=[4])
        assert row.latency.p50_ms == pytest.approx(16)
        assert row.pictures_per_second == pytest.approx(250)
        assert row.scenario == turn.scenario == scenario


def test_silences_are_in_turn_with_none_and_only_the_call_is_timed() -> None:
    clock, last = HostClock(), [0]

    def spend(count: int) -> None:
        clock.pass_ms(5.0 + (clock.now - last[0]) / 1e8)  # the longer the silence, the slower
        last[0] = clock.now

    runner = CountingRunner(spend=spend)
    found = [row for _, row in served("single_stream", runner, clock, batch_sizes=[1, 8], idle_gaps_ms=[0, 100, 1000])]
    idle = {row.idle_ms: row for row in found if row.idle_ms is not None}
    assert {row.batch_size for row in idle.values()} == {1}
    assert [round(idle[gap].latency.p50_ms) for gap in (0.0, 100.0, 1000.0)] == [5, 6, 15]
    assert len(idle[100.0].round_p50_ms) == 10


def test_a_comparison_has_an_interval_and_a_verdict() -> None:
    clock = HostClock()
    fast, slow = a_runner_of(clock, 10.0), a_runner_of(clock, 11.0)
    fast.artifact, slow.artifact = "fast", "slow"
    plan = LatencyPlan(schedule=Schedule(warmup_ms=10, duration_ms=300, rounds=10), batch_sizes=(1,))
    when = Time(clock=clock, watch=FakeWatch())
    ((turn, rows),) = measure_latency([opened(fast), opened(slow)], plan, when=when)
    (comparison,) = compare_rows(rows, [turn])
    assert comparison.ratio is not None
    assert (comparison.ratio.verdict, comparison.separated) == ("slower", True)
    assert comparison.ratio.words() == "1.10× as slow (1.10 – 1.10)"


def test_a_run_on_a_busy_machine_says_so_and_is_a_result_all_the_same() -> None:
    result = bench_latency(
        LatencyOptions(artifacts=("s.onnx",), device="cpu", batch_sizes=(1,)),
        schedule=QUICK,
        open_artifact=lambda artifact, **options: CountingRunner(),
        when=Time(watch=FakeWatch(then=BUSY)),
    )
    assert result.data["quiet"] is False
    (turn,) = result.data["turns"]
    assert len(turn["rounds"]["tracks"][0]["visits"]) == 6


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"rates": [5.0]}, "--rate has no effect"),
        ({"idle_gap": True, "scenario": "offline"}, "single_stream"),
        ({"image_sizes": [64]}, "--image-size has no effect on s.onnx"),
    ],
)
def test_options_without_effect_are_refused_before_anything_is_opened(asked: dict[str, object], problem: str) -> None:
    options = LatencyOptions.from_dict({"artifacts": ["s.onnx"], **asked})
    with pytest.raises(ZooError, match=problem):
        bench_latency(options, open_artifact=lambda artifact, **options: pytest.fail("it was opened"))


class ApartRunner(CountingRunner):
    """A runner on a GPU that tells the parts of a call."""

    def infer_apart(self, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float32], Parts]:
        return self.infer(pictures), Parts(host_to_device_ms=1.0, compute_ms=4.0, device_to_host_ms=0.5)


def test_on_a_gpu_the_parts_of_a_call_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = measure(ApartRunner(), [2])
    assert row.parts is None  # on a processor nothing is copied
    monkeypatch.setattr("serve.bench.measure.latency.is_gpu", lambda device: True)
    (row,) = measure(ApartRunner(), [2])
    assert row.parts is not None
    assert (row.parts.host_to_device.p50_ms, row.parts.compute.p50_ms, row.parts.end_to_end.p50_ms) == (1.0, 4.0, 5.5)
    assert row.parts.end_to_end.n == 100
    assert LatencyRow.from_dict(row.to_dict()) == row
    (plain,) = measure(CountingRunner(), [2])
    assert plain.parts is None  # the runner tells none
