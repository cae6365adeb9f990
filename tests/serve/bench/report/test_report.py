from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table

from serve.bench.measure.latency import LatencyRow, compare_rows
from serve.bench.measure.stages import places, stage_row, total_ms
from serve.bench.measure.timing import Samples, Schedule
from serve.bench.report.headlines import headlines
from serve.bench.report.measured import group_by_device
from serve.bench.report.page import render_page
from serve.bench.report.report import write_report
from serve.bench.report.tables import latency_tables
from zoo.errors import ZooError
from zoo.model.variants import find_variant
from zoo.results import Result, measured_on, summarize, write_result

S = find_variant("s")
# Milliseconds of MBConv and Fused-MBConv per stage: fused wins 1 to 3, stage 4 is even, MBConv wins 5 and 6.
TIMES = ((2.0, 1.0), (3.6, 1.8), (1.7, 1.4), (1.0, 1.01), (2.9, 5.6), (3.6, 8.8))


def stages_result(
    device: str = "NVIDIA H100", times: Sequence[tuple[float, float]] = TIMES, precision: str = "fp16"
) -> Result:
    rows = [
        stage_row(S, place, 32, [[Samples((ms, ms * 1.001, ms * 1.002), ms) for _ in range(5)] for ms in both])
        for place, both in zip(places(S, 384), times, strict=True)
    ]
    return Result(
        kind="stages",
        name=f"s-384px-b32-{precision}",
        environment=measured_on(device),
        settings={"schedule": Schedule().to_dict(), "clock": "CUDA events"},
        data={
            "model": "s",
            "variant": S.to_dict(),
            "image_size": 384,
            "batch_size": 32,
            "precision": precision,
            "rows": [row.to_dict() for row in rows],
            "total_ms": total_ms(rows),
            "gpu": {"n": 12, "power_w": {"min": 200.0, "mean": 300.0, "max": 400.0}, "throttle_reasons": ["power cap"]},
            "gpu_reason": "",
        },
    )


def latency_result(names: Sequence[str] = ("s.onnx", "s.plan"), *, spread: float = 0.0, samples: int = 200) -> Result:
    rows = [
        LatencyRow(
            artifact=name,
            batch_size=size,
            latency=summarize([base * size * (1 + spread * (index % 2)) for index in range(samples)]),
            pictures_per_second=1000 / base,
            round_p50_ms=(base * size,) * 5,
            max_difference=0.0,
        )
        for size in (1, 8)
        for name, base in zip(names, (4.0, 2.0), strict=False)
    ]
    picture = {"width_px": 640, "height_px": 427, "image_size": 384, "encoded_bytes": 9, "source": "china.jpg"}
    artifacts = [
        {
            "artifact": name,
            "model": "s",
            "backend": "fake",
            "device": "NVIDIA H100",
            "image_size": 384,
            "num_classes": 10,
        }
        for name in names
    ]
    return Result(
        kind="latency",
        name=" vs ".join(names),
        environment=measured_on("NVIDIA H100"),
        settings={"schedule": Schedule().to_dict(), "clock": "the host's", "threads": 3},
        data={
            "artifacts": artifacts,
            "rows": [row.to_dict() for row in rows],
            "comparisons": compare_rows(rows),
            "picture": picture | {"decode": summarize([3.0]).to_dict(), "prepare": summarize([1.0]).to_dict()},
            "gpu": None,
            "gpu_reason": "NVML is not installed",
        },
    )


def train_result() -> Result:
    rows = [
        {
            "stage": 1 + index,
            "image_size": size,
            "batch_size": 64,
            "pictures_per_second": 64 / ms * 1000,
            "ms_per_step": summarize([ms] * 20).to_dict(),
        }
        for index, (size, ms) in enumerate(((128, 64.0), (300, 160.0)))
    ]
    return Result(
        kind="train",
        name="s-folder-bf16",
        environment=measured_on("NVIDIA H100"),
        settings={"model": "s", "recipe": "folder", "precision": "bf16", "steps": 20},
        data={"rows": rows},
    )


def peers_result() -> Result:
    rows = [
        {
            "network": "s",
            "image_size": 224,
            "batch_size": 4,
            "peer": peer,
            "peer_name": name,
            "mode": mode,
            "ours": summarize([ours] * 20).to_dict(),
            "theirs": summarize([100.0] * 20).to_dict(),
            "ours_over_theirs": {"p50": ours / 100, "low": ours / 100, "high": ours / 100, "n": 20},
        }
        for peer, name, mode, ours in (
            ("torchvision", "efficientnet_v2_s", "forward", 80.0),
            ("torchvision", "efficientnet_v2_s", "step", 101.0),
            ("timm", "tf_efficientnetv2_s", "forward", 103.0),
        )
    ]
    return Result(kind="peers", name="fp32", environment=measured_on("CPU"), settings={}, data={"rows": rows})


def test_peers_say_where_we_are_slower_too() -> None:
    (runs,) = group_by_device([peers_result()])
    assert [row.verdict for row in runs.peers[0].rows] == ["faster", "even", "slower"]
    assert headlines(runs)[0].endswith("80 % to 103 % of its twin's time: slower than its twin by more than 2 % in 1.")
    page = render_page([runs])
    for said in ("tf_efficientnetv2_s", "forward and backward", "faster", "even", "slower", "20 + 20"):
        assert said in page


def progressive_result(**changes: Any) -> Result:
    times = {"progressive": 50.0, "size only": 55.0, "fixed": 100.0}
    epochs = [{"seconds": 25.0, "val_top1": 0.4}, {"seconds": 25.0, "val_top1": 0.6}]
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "top1": 0.60 + 0.01 * seed,
            "seconds": seconds + seed,
            "processor_seconds": 1.0,
            "epochs": epochs,
        }
        | changes
        for seed in (0, 1, 2)
        for arm, seconds in times.items()
    ]
    return Result(kind="progressive", name="b0-64px", environment=measured_on("CPU"), settings={}, data={"rows": rows})


def test_ways_of_training_are_held_against_the_last_one() -> None:
    (runs,) = group_by_device([progressive_result()])
    assert headlines(runs)[0] == (
        "Trained the same number of epochs, b0-64px reaches 61.0 ± 1.0 % with a fixed picture size; progressive "
        "61.0 ± 1.0 % in 50 % and size only 61.0 ± 1.0 % in 55 % of that time (3 seeds each)."
    )
    page = render_page([runs])
    for said in ("Accuracy over time", "60.0, 61.0, 62.0", "size only", "1\N{NO-BREAK SPACE}min 41\N{NO-BREAK SPACE}s"):
        assert said in page


def test_arms_without_the_same_seeds_are_no_comparison() -> None:
    result = progressive_result()
    with pytest.raises(ZooError, match="different seeds"):
        group_by_device([replace(result, data={"rows": result.data["rows"][:-1]})])


def said_of(*results: Result) -> list[str]:
    (runs,) = group_by_device(results)
    return headlines(runs)


class PageChecker(HTMLParser):
    """Collects what a page loads and says, and refuses tags that are not closed in order."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for key, value in attrs if key in ("src", "href", "xlink:href", "data", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def check(page: str) -> PageChecker:
    checker = PageChecker()
    checker.feed(page)
    checker.close()
    assert not checker.open
    return checker


def test_the_first_sentence_says_who_wins_where() -> None:
    said = said_of(stages_result())
    assert said[0] == (
        "On NVIDIA H100, Fused-MBConv wins stages 1–3, MBConv wins stages 5 and 6 and stage 4 is even "
        "(s at 384 px, batch 32, fp16)."
    )
    assert "The published network uses the faster form, or one as fast, in every stage." in said
    # By hand: 2.0 + 3.6 + … = 14.8 and 1.0 + 1.8 + … = 19.61; as published 1.0 + 1.8 + 1.4 + 1.0 + 2.9 + 3.6 = 11.7.
    assert "All stages together take 11.7 ms as published, 14.8 ms with MBConv only and 19.6 ms with Fused" in said[3]


def test_one_form_may_win_everywhere() -> None:
    said = said_of(stages_result(times=[(1.0, 2.0)] * 6))
    assert said[0].startswith("On NVIDIA H100, MBConv wins every stage (")
    assert "3 of 6 stages" in said[1]
    assert not any("multiply-adds" in sentence for sentence in said)
    assert said_of(stages_result(times=[(1.0, 1.0)] * 6))[0].startswith("On NVIDIA H100, every stage is even (")


def test_more_work_in_less_time_is_told() -> None:
    (sentence,) = [sentence for sentence in said_of(stages_result()) if "multiply-adds" in sentence]
    # Stage 1: fused 24·24·9 against 24·(9 + 24) per pixel is 6.5 times; 1.0 of 2.0 ms is half.
    assert "In stage 1 Fused-MBConv does 6.5× the multiply-adds of MBConv in 50 % of its time" in sentence


def test_details_are_of_one_run_where_there_are_several() -> None:
    slow = stages_result(times=[(ms * 3, fused * 3) for ms, fused in TIMES], precision="fp32")
    said = said_of(slow, stages_result())
    assert sum(sentence.startswith("On NVIDIA H100") for sentence in said) == 2
    assert next(sentence for sentence in said if "All stages" in sentence).endswith("batch 32, fp16).")


def test_latency_is_told_with_its_tail_and_its_n() -> None:
    said = said_of(latency_result())
    assert "s.onnx answers one picture in 4.00 ms (p50; p99 4.00 ms, n = 200) and reaches 250 pictures/s" in said[0]
    assert "Beside s.onnx, s.plan is 2.0× as fast at batch 1 and 2.0× as fast at batch 8." in said
    assert "Before the network sees it, a 640 × 427 JPEG takes 4.00 ms to decode and resize." in said
    assert not any("unstable" in sentence for sentence in said)


@pytest.mark.parametrize(
    ("samples", "p90", "p99"), [(9, False, False), (10, True, False), (99, True, False), (100, True, True)]
)
def test_a_percentile_is_shown_only_where_it_is_not_the_slowest_sample(samples: int, p90: bool, p99: bool) -> None:
    result = latency_result(["s.onnx"], samples=samples)
    sentence = said_of(result)[0]
    assert ("p99 4.00 ms" in sentence, "slowest 4.00 ms" in sentence) == (p99, not p99)
    page = render_page(group_by_device([result]))
    # Two rows of the table, and of the bars' ticks two of batches and one of the network beside decoding.
    dashes = 2 * ((not p90) + (not p99))
    assert page.count(">–</td>") == dashes
    assert [page.count(f'class="mark {name}"') for name in ("p90", "p99")] == [3 * p90, 3 * p99]
    (table, *_) = latency_tables(result)
    assert isinstance(table, Table)
    cells = {str(column.header): list(column.cells) for column in table.columns}
    assert ("–" in cells["p90"], "–" in cells["p99"]) == (not p90, not p99)
    assert cells["max"] == ["4.00", "32.0"]


def test_unstable_timings_are_counted_and_marked() -> None:
    result = latency_result(spread=0.5)
    assert said_of(result)[-1].startswith("4 of 4 timings vary by more than 2.5 %")
    assert render_page(group_by_device([result])).count(">unstable</span>") == 4


def test_training_is_told_from_the_smallest_size_to_the_largest() -> None:
    (sentence,) = said_of(train_result())
    assert sentence == (
        "Training s (folder, bf16) takes in 1,000 pictures/s at 128 px and 400 at 300 px: the first stage of "
        "progressive learning runs 2.5× as fast as the last."
    )


def test_the_page_stands_alone() -> None:
    page = render_page(group_by_device([stages_result(), latency_result(), train_result()]))
    checker = check(page)
    assert checker.loads == []
    assert not {"script", "link", "iframe", "img"} & set(checker.tags)
    assert "url(" not in page
    assert "@import" not in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert checker.tags.count("h1") == 1


def test_the_page_shows_every_figure_of_a_stage() -> None:
    result = stages_result()
    text = "\n".join(check(render_page(group_by_device([result]))).text)
    for row in result.data["rows"]:
        assert row["verdict"] in text
    for expected in ("EfficientNetV2 on NVIDIA H100", "Stage 6", "8.81 ms", "0.3 %", "share of MACs", "n = 12"):
        assert expected in text, expected
    assert "throttled: power cap" in text
    assert "5 rounds in turn, 3 s and at least 10 iterations in all, after 200 ms of warm-up" in text


def test_every_picture_has_words() -> None:
    page = render_page(group_by_device([stages_result(), latency_result(), train_result()]))
    drawings = re.findall(r"<svg[^>]*>", page)
    assert drawings
    assert all("aria-label=" in drawing or 'aria-hidden="true"' in drawing for drawing in drawings)
    figures = page.count("<figure")
    assert figures == page.count("<figcaption>") > 4


def test_the_winner_stands_out_and_the_loser_steps_back() -> None:
    page = render_page(group_by_device([stages_result()]))
    assert page.count('class="fill fused_mbconv faded"') == 2  # stages 5 and 6
    assert page.count('class="fill mbconv faded"') == 3  # stages 1 to 3; stage 4 is even and fades neither


def test_names_cannot_break_the_page() -> None:
    page = render_page(group_by_device([latency_result(names=("<script>alert(1)</script>", 'a"b&c'))]))
    checker = check(page)
    assert "script" not in checker.tags
    assert "<script>alert(1)</script>" in checker.text


def test_several_devices_get_a_section_each_and_a_table_across() -> None:
    results = [stages_result(), stages_result("NVIDIA H200", times=[(1.0, 2.0)] * 6), latency_result()]
    text = "\n".join(check(render_page(group_by_device(results))).text)
    assert "Who wins where, device by device" in text
    assert [runs.device for runs in group_by_device(results)] == ["NVIDIA H100", "NVIDIA H200"]
    assert "Who wins where" not in render_page(group_by_device(results[:1]))


def test_one_batch_size_makes_no_curve() -> None:
    result = latency_result()
    one = {**result.data, "rows": [row for row in result.data["rows"] if row["batch_size"] == 1]}
    assert "Throughput</strong>" in render_page(group_by_device([result]))
    alone = Result(
        kind="latency", name="s", environment=result.environment, settings={}, data={**one, "comparisons": []}
    )
    assert "Throughput</strong>" not in render_page(group_by_device([alone]))


@pytest.mark.parametrize(
    "data",
    [{}, {"rows": []}, {"rows": [{"index": 1}]}, {"variant": "s", "rows": 3}],
    ids=["empty", "no rows", "a row that lacks its forms", "wrong types"],
)
def test_a_damaged_result_is_named(data: dict[str, Any]) -> None:
    whole = stages_result()
    broken = {**whole.data, **data} if data else {}
    result = Result(kind="stages", name="s-broken", environment=whole.environment, settings={}, data=broken)
    with pytest.raises(ZooError, match="s-broken") as error:
        group_by_device([result])
    assert "zoo bench stages" in error.value.hint


def test_the_report_is_a_page_and_its_json(tmp_path: Path) -> None:
    for result in (stages_result(), latency_result(), train_result()):
        write_result(tmp_path / "benchmarks", result)
    out = tmp_path / "benchmarks" / "report.html"
    written = write_report([tmp_path / "benchmarks"], out)
    assert written["report"] == str(out)
    beside = json.loads((tmp_path / "benchmarks" / "report.json").read_text())
    assert beside["format"] == "zoo-report-1"
    assert beside["headlines"] == written["headlines"]
    assert {result["kind"] for result in beside["results"]} == {"stages", "latency", "train"}
    # The report lies among the results now, and making it again must give the same page.
    first = out.read_text()
    write_report([tmp_path / "benchmarks"], out)
    assert out.read_text() == first


def test_a_failed_report_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "foreign.json").write_text('{"hello": "world"}')
    with pytest.raises(ZooError, match=r"foreign\.json"):
        write_report([tmp_path], tmp_path / "report.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign.json"]
