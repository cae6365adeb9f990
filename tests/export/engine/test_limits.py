from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from export.engine.builders import BUILDERS, RTX, EngineSettings, find_builder
from export.engine.limits import LIMITS, Limit, check_limits
from export.engine.tensorrt_api import Log, TensorRT, load_tensorrt
from export.options import ExportOptions
from export.pipeline import export_model
from zoo.errors import ZooError
from zoo.rows import field_types


def tensorrt(builder: str, version: str) -> TensorRT:
    module: Any = SimpleNamespace()
    return TensorRT(find_builder(builder), module, version, None, Log())


@pytest.mark.parametrize("row", LIMITS, ids=lambda row: f"{row.builder} {row.flag}")
def test_every_limit_speaks_of_a_setting_and_a_builder_that_exist(row: Limit) -> None:
    assert row.builder in [each.id for each in BUILDERS]
    assert row.setting in {*field_types(EngineSettings), "timing_cache"}
    assert row.flag.removeprefix("--").replace("-", "_") == row.setting


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (EngineSettings(optimization_level=0), "--optimization-level: it tunes nothing"),
        (EngineSettings(compat="ampere+"), "--compat: its plans run on all GPUs they were built for"),
        (EngineSettings(version_compatible=True), "--version-compatible: it comes without the lean runtime"),
        (EngineSettings(weights="refittable"), "--weights refittable: it needs a CUDA driver"),
        (EngineSettings(weights="stripped"), "--weights stripped: it needs a CUDA driver"),
    ],
)
def test_what_tensorrt_rtx_cannot_be_told_is_refused(settings: EngineSettings, said: str) -> None:
    with pytest.raises(ZooError, match=rf"TensorRT-RTX 1\.7\.1 does not take {said}") as caught:
        check_limits(tensorrt("tensorrt-rtx", "1.7.1"), settings, driver=None)
    assert caught.value.hint
    check_limits(tensorrt("tensorrt", "11.4.0"), settings, driver=None)


def test_a_release_is_not_taken_for_one_that_begins_like_it() -> None:
    refittable = EngineSettings(weights="refittable")
    check_limits(tensorrt("tensorrt", "11.30.1"), refittable, driver=None)
    with pytest.raises(ZooError, match=r"11\.3\.0"):
        check_limits(tensorrt("tensorrt", "11.3.0"), refittable, driver=None)


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
def test_a_timing_cache_is_refused_before_long_work(
    tiny_checkpoint: Path, tmp_path: Path, no_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.pipeline.find_source", lambda *_: pytest.fail("worked"))
    options = {"trt": "fp16", "builder": "tensorrt-rtx", "timing_cache": tmp_path / "timings"}
    with pytest.raises(ZooError, match="--timing-cache: it measures nothing while it builds"):
        export_model(ExportOptions(model=str(tiny_checkpoint), out=tmp_path / "out", **options))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
def test_tensorrt_rtx_itself_says_what_the_limits_say() -> None:
    """Should a later release learn it, its row is to go."""
    rtx = load_tensorrt(RTX)
    rtx.log.clear()
    config = rtx.module.Builder(rtx.logger).create_builder_config()
    config.hardware_compatibility_level = rtx.module.HardwareCompatibilityLevel.AMPERE_PLUS
    assert any("setHardwareCompatibilityLevel() is unsupported" in text for text in rtx.log.warnings())
