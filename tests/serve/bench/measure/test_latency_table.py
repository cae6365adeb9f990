"""A table of parts: its sums are exact where times are known, it goes on where it was stopped, it is really made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve.bench.kind import read_data
from serve.bench.measure import latency_table
from serve.bench.measure.block_times import AT_ONCE, groups_of
from serve.bench.measure.engines import Bench, Prepared, reference_answers
from serve.bench.measure.latency import Time
from serve.bench.measure.latency_table import Seams, bench_latency_table
from serve.bench.measure.latency_table_data import LatencyTableData
from serve.bench.measure.part_forms import form_of_block
from serve.bench.measure.timing import Schedule
from serve.bench.report.devices import group_by_device
from serve.bench.report.page import render_page
from serve.bench.stage_options import LatencyTableOptions
from tests.serve.bench.measure.simulated import BUSY, FakeWatch, HostClock
from zoo.errors import UnknownNameError, VerdictError, ZooError
from zoo.model.blocks import LATENCY_TABLE, read_latency_table
from zoo.model.build import build_network
from zoo.model.layers import Block, ConvNormAct
from zoo.model.spaces import CONTROL, write_space
from zoo.model.variants import find_variant
from zoo.results import Result, result_path, write_result

KNOWN = Schedule(warmup_ms=0, min_warmup_iterations=1, duration_ms=1, min_iterations=10, rounds=10)
HASTY = Schedule(warmup_ms=0, min_warmup_iterations=1, duration_ms=0.01, min_iterations=3, rounds=3)
CALL_MS, ENTRY_MS, MS_PER_WEIGHT = 2.0, 0.5, 0.001


def options(out: Path, **fields: object) -> LatencyTableOptions:
    asked = {"space": "control", "engine": "torch", "device": "cpu", "threads": 1, "networks": 3, "out": out}
    return LatencyTableOptions(**asked | fields)  # type: ignore[arg-type]


def known_ms(network: Any) -> float:
    """What a network takes where every weight of a convolution takes as long, every call and every entry too."""
    total = CALL_MS
    for name, module in network.named_children():
        if name == "entry" and getattr(module, "out_channels", 1) > 1:
            total += ENTRY_MS
    parts = [module for module in network.modules() if isinstance(module, Block)]
    parts += [module for module in network.children() if isinstance(module, ConvNormAct)]
    return total + MS_PER_WEIGHT * sum(weights.numel() for part in parts for weights in part.parameters())


@dataclass
class FakeRunner:
    """Answers as PyTorch does, in the time that is known."""

    prepared: Prepared
    clock: HostClock
    answers: Any = None
    backend: str = "fake 1.0"
    threads: int | None = 1

    def __enter__(self) -> FakeRunner:
        return self

    def __exit__(self, *raised: object) -> None:
        return None

    def infer(self, pictures: Any) -> Any:
        if self.answers is None:
            self.answers = reference_answers(self.prepared.network, self.prepared.contract, pictures)
        self.clock.pass_ms(known_ms(self.prepared.network))
        return self.answers


@dataclass
class Machine:
    """Opens fakes, and keeps how many."""

    clock: HostClock = field(default_factory=HostClock)
    watch: FakeWatch = field(default_factory=FakeWatch)
    opened: int = 0
    breaks_after: int | None = None

    def seams(self) -> Seams:
        def open_form(prepared: Prepared, bench: Bench) -> Any:
            if self.opened == self.breaks_after:
                raise KeyboardInterrupt
            self.opened += 1
            return FakeRunner(prepared, self.clock)

        return Seams(open_form=open_form, when=Time(clock=self.clock, watch=self.watch))


def made(out: Path, machine: Machine | None = None, **fields: object) -> tuple[Result, LatencyTableData]:
    machine = machine or Machine()
    result = bench_latency_table(options(out, **fields), schedule=KNOWN, seams=machine.seams())
    return result, LatencyTableData.from_dict(result.data)


def test_of_known_times_every_part_and_every_sum_is_exact(tmp_path: Path) -> None:
    result, data = made(tmp_path)
    assert data.complete
    assert {row.block for row in data.table.rows} == set(CONTROL.blocks(32))
    assert data.table.call_ms == pytest.approx(CALL_MS)
    for row in data.table.rows:
        network = form_of_block(CONTROL.variant(next(CONTROL.candidates())), row.block, 1000).network
        own = known_ms(network) - CALL_MS - (ENTRY_MS if row.block.operator != "stem" else 0)
        assert row.ms == pytest.approx(own, abs=2e-6), row.block
        assert row.low_ms == pytest.approx(own, abs=2e-6) and row.n == 10
    assert len(data.whole) >= 3
    for whole in data.whole:
        assert whole.sum_ms == pytest.approx(whole.ms, abs=1e-5)
    assert data.mean_error == pytest.approx(0, abs=1e-6) and data.rank_correlation == pytest.approx(1.0)
    assert result.data["max_error"] == pytest.approx(0, abs=1e-6)


def test_the_sum_is_that_of_every_candidate_not_of_those_measured(tmp_path: Path) -> None:
    _, data = made(tmp_path, networks=0)
    assert data.whole == () and data.mean_error is None and data.rank_correlation is None
    for candidate in CONTROL.candidates():
        variant = CONTROL.variant(candidate)
        ms, low, high = data.table.sum_ms(variant)
        assert ms == pytest.approx(known_ms(build_network(variant)), abs=1e-4)
        assert low <= ms <= high


def test_a_network_of_another_space_is_refused(tmp_path: Path) -> None:
    _, data = made(tmp_path, networks=0)
    with pytest.raises(ZooError, match="has no row for") as error:
        data.table.sum_ms(find_variant("b0"))
    assert "another space" in error.value.hint


def test_what_was_measured_is_kept_when_it_is_stopped(tmp_path: Path) -> None:
    broken = Machine(breaks_after=AT_ONCE + 3)  # the stem with its frame, then a group with its own
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, broken)
    (path,) = tmp_path.glob("*.json")
    kept = LatencyTableData.from_dict(json.loads(path.read_text())["data"])
    assert 1 < len(kept.parts) < kept.asked and not kept.complete
    with pytest.raises(ZooError, match="has no row for"):
        read_latency_table(path)[0].sum_ms(CONTROL.variant(next(CONTROL.candidates())))
    machine = Machine()
    _, data = made(tmp_path, machine)
    assert data.complete and data.table.rows[: len(kept.parts)] == kept.table.rows
    whole = Machine()
    made(tmp_path / "whole", whole)
    assert machine.opened < whole.opened


def test_a_complete_result_is_not_measured_again(tmp_path: Path) -> None:
    first, data = made(tmp_path)
    write_result(tmp_path, first)
    machine = Machine()
    _, again = made(tmp_path, machine)
    assert machine.opened == 0 and again.table == data.table and again.whole == data.whole
    more = Machine()
    _, drawn = made(tmp_path, more, networks=5)
    assert more.opened == len(drawn.whole) > len(data.whole) and drawn.table == data.table
    anew = Machine()
    made(tmp_path, anew, again=True)
    assert anew.opened > more.opened


def test_other_durations_do_not_go_on_with_it(tmp_path: Path) -> None:
    result, _ = made(tmp_path, networks=0)
    with pytest.raises(ZooError, match="other durations") as error:
        bench_latency_table(options(tmp_path, networks=0), schedule=HASTY, seams=Machine().seams())
    assert "--again" in error.value.hint
    path = result_path(tmp_path, result)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ZooError, match="cannot be gone on with"):
        made(tmp_path)


def test_another_version_of_the_engine_does_not_go_on_with_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, Machine(breaks_after=2))
    (path,) = tmp_path.glob("*.json")
    path.write_text(path.read_text().replace("fake 1.0", "fake 0.9"))
    with pytest.raises(ZooError, match=r"begun in fake 0\.9, and this is fake 1\.0"):
        made(tmp_path)


def test_a_busy_machine_is_told(tmp_path: Path, said_of: Callable[..., list[str]]) -> None:
    result, data = made(tmp_path, Machine(watch=FakeWatch(then=BUSY)))
    assert all(not row.quiet for row in data.parts)
    assert said_of(result)[0].startswith("The machine was not quiet: of 10 of 10 parts")


def test_errors_are_in_headline_page_and_figures(
    tmp_path: Path, said_of: Callable[..., list[str]], check: Callable[[str], Any]
) -> None:
    result, data = made(tmp_path)
    shifted = replace(data, whole=tuple(replace(row, sum_ms=1.1 * row.ms) for row in data.whole))
    result = replace(result, data=shifted.to_dict())
    said, of_operators = said_of(result)
    assert of_operators == (  # every MBConv has fewer weights, and weights are what takes time here
        "Of 4 pairs of its blocks that differ in the operator alone, MBConv is faster in 4, Fused-MBConv in 0; 0 are "
        "unclear."
    )
    assert said.startswith("The space control at 32 px, batch 1, fp32, PyTorch, eager on")
    assert "off by 10 % of whole networks' latency in the mean, by 10 % at most, +10 % with their sign" in said
    assert f"rank correlation is 1.00 (n = {len(data.whole)})" in said
    page = render_page(group_by_device([result]))
    check(page)
    assert "Sums of parts over whole networks" in page and "+10.0" in page
    assert "A call that computes nothing takes 2.00" in page
    kind, _ = read_data(result)
    assert kind.command == "zoo bench latency-table"


def test_what_is_not_complete_says_so(tmp_path: Path, said_of: Callable[..., list[str]]) -> None:
    result, data = made(tmp_path, networks=0)
    assert "10 parts are timed, and no whole network" in said_of(result)[0]
    part = replace(data, parts=data.parts[:4], table=replace(data.table, rows=data.table.rows[:4]))
    assert "4 of 10 parts are timed; the same command goes on" in said_of(replace(result, data=part.to_dict()))[0]
    with pytest.raises(ZooError, match="4 parts and 10 rows"):
        read_data(replace(result, data=part.to_dict() | {"table": data.table.to_dict()}))


def test_parts_that_share_a_frame_are_timed_together() -> None:
    groups = list(groups_of(CONTROL.blocks(32)))
    assert [block.operator for block in groups[0]] == ["stem"]
    assert sorted(map(str, (block for group in groups for block in group))) == sorted(map(str, CONTROL.blocks(32)))
    for group in groups:
        assert len(group) <= AT_ONCE
        assert len({(block.in_channels, block.in_size) for block in group}) == 1


def test_a_part_that_answers_otherwise_is_not_timed(tmp_path: Path) -> None:
    def open_form(prepared: Prepared, bench: Bench) -> Any:
        return FakeRunner(prepared, HostClock(), answers=np.full((1, 16), np.nan, np.float32))

    with pytest.raises(VerdictError, match=r"stem, 3 → 8 channels, 32 px in fp32 by fake 1\.0"):
        bench_latency_table(options(tmp_path), schedule=KNOWN, seams=Seams(open_form=open_form))
    assert list(tmp_path.glob("*.json")) == []


def test_what_cannot_be_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError):
        bench_latency_table(options(tmp_path, space="papper"))
    with pytest.raises(ZooError, match="not measured in fp16"):
        bench_latency_table(options(tmp_path, precision="fp16"))


@pytest.fixture
def two_networks(tmp_path: Path) -> Iterator[Path]:
    """A space of a user: two networks of one stage."""
    least = replace(CONTROL.stages[0], operators=("mbconv", "fused_mbconv"))
    path = tmp_path / "two.toml"
    write_space(path, replace(CONTROL, id="two", stages=(least,), image_size=16, eval_size=16, train_size=16))
    yield path


def test_a_space_of_a_user_is_really_timed_in_onnx_runtime(
    two_networks: Path, tmp_path: Path, zoo: Callable[..., Any]
) -> None:
    brief = "--duration-s 0.01 --warmup-ms 0 --rounds 3 --threads 1 --device cpu"
    out = tmp_path / "results"
    answer = zoo(
        *f"bench latency-table --space {two_networks} --on ort-cpu {brief} --networks 2 -o {out} --json".split()
    )
    assert answer.code == 0, answer.err
    assert "4 of 4 parts" in answer.err
    data = LatencyTableData.from_dict(json.loads(answer.out)["data"])
    assert data.backend.startswith("onnxruntime") and data.table.threads == 1
    assert len({row.candidate for row in data.whole}) == len(data.whole) == 2  # there are no more
    assert all(part.max_error < 1e-3 for part in data.parts)
    table, _ = read_latency_table(next(out.glob("latency-table-two-16px-ort-cpu-*.json")))
    assert table == data.table


def test_the_kinds_name_is_the_readers() -> None:
    assert latency_table.KIND == LATENCY_TABLE
