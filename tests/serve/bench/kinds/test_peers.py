from __future__ import annotations

from serve.bench.report.devices import group_by_device, headlines
from serve.bench.report.page import render_page
from zoo.results import Result, measured_on, summarize


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
    assert [row.verdict for row in runs.of("peers")[0].data.rows] == ["faster", "even", "slower"]
    assert headlines(runs)[0].endswith("80 % to 103 % of its twin's time: slower than its twin by more than 2 % in 1.")
    page = render_page([runs])
    for said in ("tf_efficientnetv2_s", "forward and backward", "faster", "even", "slower", "20 + 20"):
        assert said in page
