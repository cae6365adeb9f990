from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from export.contract import Contract
from serve.bench.measure.frontier import FrontierData, bench_zoo, is_on_frontier
from serve.bench.measure.latency import Time
from serve.bench.measure.published import ACCURACIES, PAIRS, SETUPS, TIMES
from serve.bench.options import FrontierOptions
from serve.bench.report.devices import group_by_device
from serve.bench.report.page import render_page
from tests.serve.bench.measure.simulated import BUSY, FakeWatch, HostClock
from zoo.errors import UnknownNameError, ZooError
from zoo.measure.timing import Schedule
from zoo.model.spec import Variant
from zoo.model.variants import find_variant
from zoo.results import Result

QUICK = Schedule(warmup_ms=0, min_warmup_iterations=2, duration_ms=1, min_iterations=4, rounds=4)
MS = {"b0": 0.5, "v1-b1": 1.5, "s": 2.5, "resnet50": 1.0, "lite0": 0.3}


class FakeNetwork(SimpleNamespace):
    """A network that takes as long as `MS` says."""

    def __enter__(self) -> FakeNetwork:
        return self

    def __exit__(self, *raised: object) -> None:
        self.closed.append(self.artifact)


def open_fake(closed: list[str], clock: HostClock) -> Callable[..., Any]:
    def open_network(variant: Variant, options: FrontierOptions) -> Any:
        def infer(pictures: Any) -> Any:
            clock.pass_ms(MS[variant.id])
            return np.ones((len(pictures), 10), np.float32)

        classes = tuple("0123456789")
        small = variant.preprocessing.at(16)
        return FakeNetwork(
            infer=infer,
            artifact=variant.id,
            contract=Contract(model=variant.id, classes=classes, preprocessing=small),
            device="CPU",
            backend="fake 1.0",
            threads=1,
            closed=closed,
        )

    return open_network


def a_frontier(watch: FakeWatch | None = None) -> tuple[Result, list[str]]:
    closed, clock = list[str](), HostClock()
    when = Time(clock=clock, watch=watch or FakeWatch())
    options = FrontierOptions(models=tuple(MS), device="cpu")
    result = bench_zoo(options, schedule=QUICK, open_network=open_fake(closed, clock), when=when)
    return result, closed


def test_networks_are_timed_in_turn_and_put_beside_their_published_accuracy() -> None:
    result, closed = a_frontier()
    assert sorted(closed) == sorted(MS)
    data = FrontierData.from_dict(result.data)
    rows = {row.model: row for row in data.rows}
    assert data.baseline == "s"
    assert rows["s"].ratio is None and rows["s"].top1_percent == 83.9
    assert rows["b0"].ratio is not None and rows["b0"].ratio.verdict == "faster"
    assert rows["b0"].latency.p50_ms == 0.5
    # resnet50 is more accurate than b0 and than v1-b1, and faster than the latter.
    assert [name for name, row in rows.items() if not row.on_frontier] == ["v1-b1"]
    assert data.rounds.quiet and result.data["quiet"] is True


def test_what_is_published_is_told_beside_it(said_of: Callable[..., list[str]], check: Callable[[str], Any]) -> None:
    result, _ = a_frontier()
    said = said_of(result)
    assert "nothing is both as fast and as accurate as lite0" in said[0]
    assert any(
        line.startswith("Beside v1-b1, b0 is 3.0× as fast") and "2.1× as fast in Table 11" in line for line in said
    )
    data = FrontierData.from_dict(result.data)
    assert data.published_ratio("s", SETUPS[0]) == 1.0
    assert data.published_ratio("lite0", SETUPS[0]) is None
    assert data.agreement("RTX 4090, AMP, timm, per picture of large batches") == (3, 3)
    page = render_page(group_by_device([result]))
    check(page)
    assert "Accuracy over time" in page and "Table 7" in page


def test_a_busy_machine_is_said_first(said_of: Callable[..., list[str]]) -> None:
    result, _ = a_frontier(FakeWatch(then=BUSY))
    assert said_of(result)[0].startswith("The machine was not quiet: 8 of 8 rounds")


def test_a_network_without_a_published_accuracy_has_no_place() -> None:
    with pytest.raises(ZooError, match="No accuracy is published of tiny") as error:
        bench_zoo(FrontierOptions(models=("s", "tiny")))
    assert "lite4" in error.value.hint
    with pytest.raises(UnknownNameError):
        bench_zoo(FrontierOptions(models=("efficientnetv3",)))


def test_the_frontier_is_what_nothing_else_beats() -> None:
    points = {"small": (70.0, 1.0), "twin": (70.0, 1.0), "slow": (70.0, 2.0), "large": (80.0, 3.0), "bad": (79.0, 3.0)}
    assert [name for name in points if is_on_frontier(name, points)] == ["small", "twin", "large"]


def test_published_rows_are_of_networks_of_the_zoo_at_their_own_size() -> None:
    for name, row in ACCURACIES.items():
        assert find_variant(name).id == row.model
        assert 60 < row.top1_percent < 90
    for time in TIMES:
        assert find_variant(time.model).eval_size == time.image_size
    assert {pair.new for pair in PAIRS} | {pair.old for pair in PAIRS} <= set(ACCURACIES)
