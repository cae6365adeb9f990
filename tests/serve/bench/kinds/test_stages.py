from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from serve.bench.drawn.stages import heat, implied_ratio
from serve.bench.measure.ratio import Ratio
from serve.bench.measure.stage_rows import Cell, Exchange, InPlace, LayerTime, Peaks
from serve.bench.report.devices import group_by_device, terminal_lines
from serve.bench.report.page import render_page
from zoo.results import Result

Make = Callable[..., Result]
TIMES = ((2.0, 1.0), (3.6, 1.8), (1.7, 1.4), (1.0, 1.01), (2.9, 5.6), (3.6, 8.8))  # those of `stages_result`
WHERE = "s at 384 px, batch 32, fp16, tensorrt"


def a_ratio(value: float, spread: float = 0.005) -> Ratio:
    return Ratio(value=value, low=value * (1 - spread), high=value * (1 + spread), rounds=10, paired=True)


EXCHANGE = Exchange(
    index=1, own_operator="fused_mbconv", own_ms=10.0, other_ms=11.0, ratio=a_ratio(10 / 11), in_place=a_ratio(2.0),
    own_in_place_ms=1.0, other_in_place_ms=0.5,
)  # fmt: skip
IN_PLACE = InPlace(
    profiler="onnxruntime",
    calls=30,
    whole_ms=10.0,
    profiled_ms=12.0,
    layers=(
        LayerTime(beside="before", ms=1.0),
        LayerTime(stage=1, block=0, operator="fused", ms=2.0),
        LayerTime(stage=1, block=1, operator=None, ms=1.0),
        LayerTime(stage=6, block=2, operator="se", ms=4.0),
        LayerTime(beside="after", ms=1.0),
    ),
    unattributed_ms={"ReorderOutput": 2.0},
)
PEAKS = Peaks(flops_per_s=900e12, flops_by="a large product", bytes_per_s=4e12, bytes_by="a copy of 2 GiB")
CELLS = [
    Cell(stage=4, channels=c, size=s, batch_size=b, mbconv_ms=1.0, fused_mbconv_ms=2 * s / c, ratio=a_ratio(2 * s / c))
    for c in (64, 128) for s in (24, 48) for b in (1, 8)
]  # fmt: skip


@pytest.fixture
def whole(stages_result: Make) -> Result:
    """A result with everything in it."""
    return stages_result(
        exchange=[EXCHANGE.to_dict()],
        in_place=IN_PLACE.to_dict(),
        peaks=PEAKS.to_dict(),
        crossover=[cell.to_dict() for cell in CELLS],
        notes=["A note of the run."],
    )


def test_the_first_sentence_says_which_engine_and_who_wins_where(
    stages_result: Make, said_of: Callable[..., list[str]]
) -> None:
    said = said_of(stages_result())
    assert said[0] == (
        "In TensorRT on NVIDIA H100, Fused-MBConv wins stages 1–3; MBConv wins stages 5 and 6; stage 4 is even "
        f"({WHERE})."
    )
    assert "The published network uses the faster form in 5 of 6 stages." in said
    # By hand: 2.0 + 3.6 + … = 14.8 and 1.0 + 1.8 + … = 19.61; as published 1.0 + 1.8 + 1.4 + 1.0 + 2.9 + 3.6 = 11.7.
    assert any("take 11.7 ms as published, 14.8 ms with MBConv only and 19.6 ms with Fused" in one for one in said)


def test_one_form_may_win_everywhere(stages_result: Make, said_of: Callable[..., list[str]]) -> None:
    said = said_of(stages_result(times=[(1.0, 2.0)] * 6))
    assert said[0].startswith("In TensorRT on NVIDIA H100, MBConv wins every stage (")
    assert "in 3 of 6 stages, the slower one in stages 1–3." in said[1]
    assert not any("multiply-adds" in sentence for sentence in said)
    assert "every stage is even (" in said_of(stages_result(times=[(1.0, 1.0)] * 6))[0]


def test_more_work_in_less_time_is_told(stages_result: Make, said_of: Callable[..., list[str]]) -> None:
    (sentence,) = [sentence for sentence in said_of(stages_result()) if "multiply-adds" in sentence]
    # Stage 1: fused 24·24·9 against 24·(9 + 24) per pixel is 6.5 times; 1.0 of 2.0 ms is half.
    assert "In stage 1 Fused-MBConv does 6.5× the multiply-adds of MBConv in 50 % of its time" in sentence


def test_details_are_of_one_run_where_there_are_several(stages_result: Make, said_of: Callable[..., list[str]]) -> None:
    slow = stages_result(times=[(ms * 3, fused * 3) for ms, fused in TIMES], precision="fp32")
    said = said_of(slow, stages_result())
    assert sum(sentence.startswith("In TensorRT on NVIDIA H100") for sentence in said) == 2
    assert next(sentence for sentence in said if "All stages" in sentence).endswith(f"({WHERE}).")


def test_a_machine_that_was_not_quiet_is_told_first(stages_result: Make, said_of: Callable[..., list[str]]) -> None:
    said = said_of(stages_result(robbed=True))
    assert said[0].startswith("The machine was not quiet: 30 of 30 rounds were disturbed")
    assert "not quiet" not in " ".join(said_of(stages_result()))


def test_what_would_settle_an_unclear_stage_is_told(stages_result: Make, said_of: Callable[..., list[str]]) -> None:
    result = stages_result()
    row = result.data["rows"][3]
    row["ratio"] = Ratio(value=1.05, low=0.99, high=1.11, rounds=10, paired=True).to_dict()
    result.data["rows"][4]["ratio"] = None
    said = " ".join(said_of(result))
    assert "stages 4 and 5 are unclear" in said
    assert "In stage 4 --duration-s" in said and "would probably settle it" in said
    assert "Stage 5 is too little" in said


def test_a_disagreement_of_the_methods_is_told(whole: Result, said_of: Callable[..., list[str]]) -> None:
    expected = (
        "In stage 1 the methods disagree on the faster form: isolated Fused-MBConv, in place MBConv and by exchange "
        "Fused-MBConv."
    )
    assert expected in said_of(whole)


def test_the_page_has_every_method_and_every_figure(whole: Result, check: Callable[[str], Any]) -> None:
    page = render_page(group_by_device([whole]))
    text = " ".join(check(page).text)
    for row in whole.data["rows"]:
        assert row["verdict"] in text
    for expected in (
        "EfficientNetV2 on NVIDIA H100",
        "Isolated, in place, by exchange",
        "the methods disagree",
        "all layers 11.0 ms, 110 % of the 10.0 ms that it takes without a profiler",
        "not attributed",
        "ReorderOutput",
        "several",
        "roof: 900,000 GFLOP/s, 4,000 GB/s",
        "a large product; a copy of 2 GiB",
        "Who wins around stage 4",
        "MBConv has squeeze-and-excitation and Fused-MBConv has none (the network's own choice).",
        "A note of the run.",
        "n = 12",
        "throttled: power cap",
    ):
        assert expected in text, expected
    assert page.index('class="glance"') < page.index("Time of each stage in both forms")
    assert page.count('class="heat fused_mbconv here"') + page.count('class="heat mbconv here"') == 2  # a cell a batch


def test_a_result_without_the_other_methods_shows_none_of_them(stages_result: Make) -> None:
    page = render_page(group_by_device([stages_result()]))
    for left_out in ("Isolated, in place", "not attributed", "Roofline", "Who wins around"):
        assert left_out not in page
    # A mark a stage and form, and a bar of the totals.
    assert page.count('class="fill mbconv"') == page.count('class="fill fused_mbconv"') == 6 + 1


def test_every_table_is_shown_on_a_terminal_too(whole: Result) -> None:
    titles = [line.title for line in terminal_lines(whole) if not isinstance(line, str)]
    assert len(titles) == 5
    assert all(WHERE in str(title) for title in titles)


def test_several_devices_get_a_section_each_and_a_table_across(
    stages_result: Make, latency_result: Make, check: Callable[[str], Any]
) -> None:
    results = [stages_result(), stages_result("NVIDIA H200", times=[(1.0, 2.0)] * 6), latency_result()]
    text = "\n".join(check(render_page(group_by_device(results))).text)
    assert "Who wins where, device by device" in text
    assert [runs.device for runs in group_by_device(results)] == ["NVIDIA H100", "NVIDIA H200"]
    assert "Who wins where, device by device" not in render_page(group_by_device(results[:1]))


def test_a_whole_networks_difference_is_a_stages_ratio() -> None:
    """10 ms with 2 ms of Fused-MBConv in the stage, 11 ms with MBConv there: 3 ms, and 2 / 3."""
    found = implied_ratio(EXCHANGE, 2.0)
    assert found and found.value == pytest.approx(2 / 3)
    assert found.low < found.value < found.high
    swapped = Exchange(index=5, own_operator="mbconv", own_ms=10.0, other_ms=11.0, ratio=a_ratio(1.1))
    other = implied_ratio(swapped, 2.0)
    assert other and other.value == pytest.approx(3 / 2)
    less = Exchange(index=5, own_operator="mbconv", own_ms=10.0, other_ms=7.0, ratio=a_ratio(0.7))
    assert implied_ratio(less, 2.0) is None  # a stage of 2 ms cannot save 3


def test_a_cell_is_the_stronger_the_larger_the_difference() -> None:
    assert heat(None) == 0
    assert 10 < heat(a_ratio(1.1)) < heat(a_ratio(2.0)) == 35 == heat(a_ratio(0.5)) < heat(a_ratio(4.0)) == 60
    assert heat(a_ratio(0.1)) == 60
