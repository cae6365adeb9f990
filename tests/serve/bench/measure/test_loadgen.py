"""MLPerf's LoadGen as a driver, where it is installed; its trace is read everywhere."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys

import pytest

from serve.bench.measure.latency_data import Setting
from serve.bench.measure.loadgen import LoadGen, load_loadgen, read_trace
from zoo.errors import MissingCapabilityError, ZooError
from zoo.measure.timing import Schedule
from zoo.stopping import Stopped, stop_signals

installed = pytest.mark.skipif(
    importlib.util.find_spec("mlperf_loadgen") is None, reason="mlcommons-loadgen is not installed"
)
LINE = (
    '{{"name":"Sample","cat":"default","ph":"b","pid":734,"id":{id},"ts":{ts},"args":{{"sample_seq":{id},'
    '"query_seq":{query},"sample_idx":8,"issue_start_ns":0,"complete_ns":{ns}}}}},'
)


def trace(*samples: tuple[float, int, int]) -> str:
    lines = [LINE.format(id=number, ts=ts, query=query, ns=ns) for number, (ts, query, ns) in enumerate(samples)]
    return "\n".join(['{"name":"LogDetail","args":{"key":""loadgen_version""}},', *lines])


def test_a_query_ends_with_its_last_sample() -> None:
    text = trace((0.0, 0, 5_000_000), (0.0, 0, 7_000_000), (8000.0, 1, 6_000_000), (8000.0, 1, 4_000_000))
    samples = read_trace(text, Setting(batch_size=2, scenario="multi_stream"))
    assert samples.ms == (7.0, 6.0)
    assert samples.wall_ms == 14.0


def test_of_a_flood_the_samples_are_batches() -> None:
    text = trace(*((0.0, 0, ns * 1_000_000) for ns in (4, 4, 9, 9, 10)))
    assert read_trace(text, Setting(batch_size=2, scenario="offline")).ms == (4.0, 5.0, 1.0)


def test_a_trace_without_samples_is_an_error() -> None:
    with pytest.raises(ZooError, match="no samples"):
        read_trace("{}", Setting(batch_size=1))


def test_where_it_is_not_installed_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    with pytest.raises(MissingCapabilityError, match="not installed") as error:
        load_loadgen()
    assert "zoo[loadgen]" in error.value.hint


@installed
@pytest.mark.parametrize("scenario", ["single_stream", "multi_stream", "offline", "server"])
def test_it_calls_the_artifact_and_tells_every_sample(scenario: str) -> None:
    taken: list[int] = []
    size = 1 if scenario == "single_stream" else 4
    rate = 200.0 if scenario == "server" else None
    driver = LoadGen(
        taken.append, Setting.from_dict({"batch_size": size, "scenario": scenario, "offered_per_second": rate})
    )
    samples = driver.visit(Schedule(duration_ms=50, min_iterations=5))
    assert all(ms > 0 for ms in samples.ms)
    assert max(taken) <= size
    if scenario == "server":
        assert sum(taken) == len(samples.ms) >= 5
    else:
        assert len(taken) == len(samples.ms)
        assert set(taken) == {size}
    assert samples.wall_ms > 0


@installed
def test_an_artifact_that_fails_under_it_raises_its_own_error() -> None:
    def fail(count: int) -> None:
        raise ZooError("the engine is gone")

    with pytest.raises(ZooError, match="the engine is gone"):
        LoadGen(fail, Setting(batch_size=1)).visit(Schedule(duration_ms=5, min_iterations=2))


@installed
@pytest.mark.parametrize("scenario", ["single_stream", "server"])
def test_a_signal_ends_the_visit_and_then_the_command(scenario: str) -> None:
    """Raised in a callback of LoadGen it would end the process without a word."""
    calls: list[int] = []

    def infer(count: int) -> None:
        calls.append(count)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    setting = Setting.from_dict({"batch_size": 1, "scenario": scenario, "offered_per_second": 2000.0})
    with pytest.raises(Stopped) as stopped, stop_signals():
        LoadGen(infer, setting).visit(Schedule(duration_ms=100, min_iterations=10))
    assert stopped.value.exit_code == 143
    assert len(calls) < 200  # in "server" 1,000 would have come, in "single_stream" many more


@installed
def test_its_single_stream_is_of_single_pictures() -> None:
    with pytest.raises(ZooError, match="one picture at a time"):
        LoadGen(print, Setting(batch_size=8))
