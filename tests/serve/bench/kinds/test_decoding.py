from __future__ import annotations

from typing import Any

import pytest

from serve.bench.report.devices import group_by_device, headlines
from serve.bench.report.page import render_page
from zoo.errors import ZooError
from zoo.results import Result, measured_on


def row(group: str, what: str, at: str, ms: float, levels: dict[str, float], **more: float) -> dict[str, Any]:
    return {
        "group": group,
        "what": what,
        "at": at,
        "ms": ms,
        "n": 128,
        "visits": 15,
        "difference_levels": levels,
        **more,
    }


def decoding_result(*, absent: dict[str, str] | None = None, whole: bool = True) -> Result:
    decoders = [
        row("decode", "Pillow, draft", "full", 0.87, {"as decoded": 0.0}),
        row("decode", "simplejpeg", "full", 0.73, {"as decoded": 0.0}),
        row("decode", "simplejpeg", "5/8", 0.86, {}),
        row("decode", "PyAV, RGB", "full", 1.25, {"as decoded": 0.8}),
        row("decode", "PyAV, RGB", "1/8", 0.68, {"as decoded": 2.671}),
    ]
    crops = [
        row("crop", "zoo, no markers", "128 px", 0.58, {"resized": 0.0}, file_bytes=38_053.5),
        row("crop", "zoo, markers every 4", "128 px", 0.43, {"resized": 0.0}, file_bytes=38_868.9),
    ]
    return Result(
        kind="decoding",
        name="500x375",
        environment=measured_on("CPU"),
        settings={"mode": "15 visits in turn"},
        data={
            "rows": [*(decoders if whole else []), *crops],
            "captions": {"decode": "A whole JPEG decoded", "crop": "What a crop needs decoded"},
            "absent": absent or {},
            "warnings": [],
        },
    )


def test_every_group_is_a_table_of_candidates_by_scale() -> None:
    (runs,) = group_by_device([decoding_result()])
    page = render_page([runs])
    assert "A whole JPEG decoded (n 128, 15 visits)" in page
    assert "What a crop needs decoded (n 128, 15 visits)" in page
    assert cells(page, "simplejpeg") == ["simplejpeg", "0.730", "0.860", "–", "0.00"]
    assert "Not measured" not in page


def test_a_difference_is_the_largest_of_all_scales() -> None:
    (runs,) = group_by_device([decoding_result()])
    assert cells(render_page([runs]), "PyAV, RGB") == ["PyAV, RGB", "1.25", "–", "0.680", "2.67"]


def test_files_of_different_sizes_have_them_beside_their_times() -> None:
    (runs,) = group_by_device([decoding_result()])
    page = render_page([runs])
    assert "kB a file" in page
    assert cells(page, "zoo, markers every 4") == ["zoo, markers every 4", "0.430", "0.00", "38.9"]


def test_the_headline_names_the_fastest_and_the_slowest_decoder_of_whole_pictures() -> None:
    (runs,) = group_by_device([decoding_result()])
    assert headlines(runs) == [
        "A whole 500x375 JPEG takes 0.730 ms to 1.25 ms to decode on one core: the fastest of 3 decoders is "
        "simplejpeg, the slowest PyAV, RGB (n = 128)."
    ]


def test_libraries_that_were_not_there_are_named() -> None:
    (runs,) = group_by_device([decoding_result(absent={"pyvips": "No module named 'pyvips'", "av": "No module"})])
    assert "not installed: av and pyvips." in render_page([runs])


def test_a_decoding_result_without_whole_pictures_is_damaged() -> None:
    with pytest.raises(ZooError, match="no decoder of whole pictures") as error:
        group_by_device([decoding_result(whole=False)])
    assert "python benchmarks/decoding.py" in error.value.hint


def cells(page: str, what: str) -> list[str]:
    """The cells of the table row that begins with `what`."""
    line = next(line for line in page.split("<tr>") if line.startswith(f"<td>{what}</td>"))
    return [cell.split(">", 1)[1] for cell in line.split("</tr>")[0].split("</td>")[:-1]]
