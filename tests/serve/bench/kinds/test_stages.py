from __future__ import annotations

from collections.abc import Callable
from typing import Any

from serve.bench.report.devices import group_by_device
from serve.bench.report.page import render_page
from zoo.results import Result

Make = Callable[..., Result]
TIMES = ((2.0, 1.0), (3.6, 1.8), (1.7, 1.4), (1.0, 1.01), (2.9, 5.6), (3.6, 8.8))  # those of `stages_result`


def test_the_first_sentence_says_who_wins_where(stages_result: Make, said_of: Callable[..., list[str]]) -> None:
    said = said_of(stages_result())
    assert said[0] == (
        "On NVIDIA H100, Fused-MBConv wins stages 1–3; MBConv wins stages 5 and 6; stage 4 is even "
        "(s at 384 px, batch 32, fp16)."
    )
    assert "The published network uses the faster form, or one as fast, in every stage." in said
    # By hand: 2.0 + 3.6 + … = 14.8 and 1.0 + 1.8 + … = 19.61; as published 1.0 + 1.8 + 1.4 + 1.0 + 2.9 + 3.6 = 11.7.
    assert "All stages together take 11.7 ms as published, 14.8 ms with MBConv only and 19.6 ms with Fused" in said[3]


def test_one_form_may_win_everywhere(stages_result: Make, said_of: Callable[..., list[str]]) -> None:
    said = said_of(stages_result(times=[(1.0, 2.0)] * 6))
    assert said[0].startswith("On NVIDIA H100, MBConv wins every stage (")
    assert "3 of 6 stages" in said[1]
    assert not any("multiply-adds" in sentence for sentence in said)
    assert said_of(stages_result(times=[(1.0, 1.0)] * 6))[0].startswith("On NVIDIA H100, every stage is even (")


def test_more_work_in_less_time_is_told(stages_result: Make, said_of: Callable[..., list[str]]) -> None:
    (sentence,) = [sentence for sentence in said_of(stages_result()) if "multiply-adds" in sentence]
    # Stage 1: fused 24·24·9 against 24·(9 + 24) per pixel is 6.5 times; 1.0 of 2.0 ms is half.
    assert "In stage 1 Fused-MBConv does 6.5× the multiply-adds of MBConv in 50 % of its time" in sentence


def test_details_are_of_one_run_where_there_are_several(stages_result: Make, said_of: Callable[..., list[str]]) -> None:
    slow = stages_result(times=[(ms * 3, fused * 3) for ms, fused in TIMES], precision="fp32")
    said = said_of(slow, stages_result())
    assert sum(sentence.startswith("On NVIDIA H100") for sentence in said) == 2
    assert next(sentence for sentence in said if "All stages" in sentence).endswith("batch 32, fp16).")


def test_the_page_shows_every_figure_of_a_stage(stages_result: Make, check: Callable[[str], Any]) -> None:
    result = stages_result()
    text = "\n".join(check(render_page(group_by_device([result]))).text)
    for row in result.data["rows"]:
        assert row["verdict"] in text
    for expected in ("EfficientNetV2 on NVIDIA H100", "Stage 6", "8.81 ms", "0.3 %", "share of MACs", "n = 12"):
        assert expected in text, expected
    assert "throttled: power cap" in text
    assert "5 rounds in turn, 3 s and at least 10 iterations in all, after 200 ms of warm-up" in text


def test_the_winner_stands_out_and_the_loser_steps_back(stages_result: Make) -> None:
    page = render_page(group_by_device([stages_result()]))
    assert page.count('class="fill fused_mbconv faded"') == 2  # stages 5 and 6
    assert page.count('class="fill mbconv faded"') == 3  # stages 1 to 3; stage 4 is even and fades neither


def test_several_devices_get_a_section_each_and_a_table_across(
    stages_result: Make, latency_result: Make, check: Callable[[str], Any]
) -> None:
    results = [stages_result(), stages_result("NVIDIA H200", times=[(1.0, 2.0)] * 6), latency_result()]
    text = "\n".join(check(render_page(group_by_device(results))).text)
    assert "Who wins where, device by device" in text
    assert [runs.device for runs in group_by_device(results)] == ["NVIDIA H100", "NVIDIA H200"]
    assert "Who wins where" not in render_page(group_by_device(results[:1]))
