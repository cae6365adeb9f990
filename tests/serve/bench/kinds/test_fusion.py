from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from serve.bench.measure.fusion import fusion_rows
from serve.bench.measure.table3 import TABLE_3, FusionData, PassData
from serve.bench.report.devices import group_by_device
from serve.bench.report.page import render_page
from tests.serve.bench.measure.made_rounds import rounds_of
from zoo.model.variants import find_variant
from zoo.results import Result, measured_on

NETWORKS = tuple(find_variant(row.variant) for row in TABLE_3)


@pytest.fixture
def fusion_result() -> Callable[..., Result]:
    def make(times: tuple[float, ...] = (4.0, 2.0, 3.0, 8.0), *, robbed: bool = False) -> Result:
        rounds = rounds_of({one.id: [ms] * 10 for one, ms in zip(NETWORKS, times, strict=True)}, robbed=robbed)
        told = PassData(
            done="inference", engine="ort-cpu", backend="ort", precision="fp32", batch_size=1, rounds=rounds
        )
        rows = fusion_rows(NETWORKS, rounds, done="inference", batch_size=1, image_size=380)
        training = [replace(row, done="training") for row in rows]
        passes = (told, replace(told, done="training", engine="torch"))
        data = FusionData(image_size=380, passes=passes, rows=tuple([*rows, *training]), gpu=None, gpu_reason="no GPU")
        return Result(kind="fusion", name="b4", environment=measured_on("CPU"), settings={}, data=data.to_dict())

    return make


def test_whether_fusing_pays_is_told_with_the_papers_order(
    fusion_result: Callable[..., Result], said_of: Callable[..., list[str]]
) -> None:
    said = said_of(fusion_result())
    assert said[0] == (
        "B4 at 380 px, inference in ONNX Runtime on the processor on CPU (batch 1, fp32): fusing stages 1–3 pays, 2.0× "
        "as fast as none; the fastest first: 1–3, 1–5, none then 1–7. Of 6 pairs of networks 4 are ordered as on V100 "
        "and 6 are ordered as on TPUv3."
    )
    assert "training in PyTorch, eager" in said[1]
    assert said[2] == (
        "The paper's Table 3 has, the fastest first, 1–5, 1–3, 1–7 then none on V100 and 1–3, 1–5, none then 1–7 on "
        "TPUv3."
    )


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ((2.0, 3.0, 4.0, 5.0), "no fusing pays: stages 1–3, the best, take 50 % more time"),
        ((2.0, 2.0, 4.0, 5.0), "fusing is even: stages 1–3, the best, take 1.00 – 1.00 of the time without"),
        ((2.0, 2.0, 4.0, 5.0), "the fastest first: none ≈ 1–3, 1–5 then 1–7. Of 6 pairs"),
    ],
)
def test_where_it_does_not_pay_that_is_told(
    times: tuple[float, ...], said: str, fusion_result: Callable[..., Result], said_of: Callable[..., list[str]]
) -> None:
    assert said in said_of(fusion_result(times))[0]


def test_a_machine_that_was_not_quiet_is_told(
    fusion_result: Callable[..., Result], said_of: Callable[..., list[str]]
) -> None:
    assert said_of(fusion_result(robbed=True))[0].startswith("The machine was not quiet")


def test_the_page_has_the_papers_columns_beside_ours(
    fusion_result: Callable[..., Result], check: Callable[[str], Any]
) -> None:
    text = " ".join(check(render_page(group_by_device([fusion_result()]))).text)
    for expected in ("Paper, V100", "Paper, TPUv3", "arXiv 2104.00298v3, Table 3", "132", "134.3", "2.00 (2.00–2.00)"):
        assert expected in text, expected
