"""What is published: a source distribution that is the whole repository, and packages that exist on every platform."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PLATFORMS = {
    "linux on x86-64": {"sys_platform": "linux", "platform_machine": "x86_64"},
    "linux on ARM": {"sys_platform": "linux", "platform_machine": "aarch64"},
    "macOS on ARM": {"sys_platform": "darwin", "platform_machine": "arm64"},
    "Windows": {"sys_platform": "win32", "platform_machine": "AMD64"},
}


def needed(platform: str) -> list[str]:
    rows = map(Requirement, PROJECT["dependencies"])
    return [row.name for row in rows if row.marker is None or row.marker.evaluate(PLATFORMS[platform])]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_exactly_one_onnx_runtime_is_installed(platform: str) -> None:
    runtimes = [name for name in needed(platform) if name.startswith("onnxruntime")]
    assert runtimes == ["onnxruntime-gpu" if platform == "linux on x86-64" else "onnxruntime"]


def test_what_a_platform_lacks_is_not_asked_for() -> None:
    for extra in ("rtx", "tensorrt"):  # `make demo` and `make test` install the first on macOS too
        for row in map(Requirement, PROJECT["optional-dependencies"][extra]):
            is_nvidias = row.name.startswith(("tensorrt", "pycuda", "cuda"))
            assert not is_nvidias or not row.marker.evaluate(PLATFORMS["macOS on ARM"]), row
    assert "uvloop" not in needed("Windows")
    assert "uvloop" in needed("macOS on ARM")


@pytest.mark.slow
def test_the_source_distribution_is_the_repository(tmp_path: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a checkout: this is the source distribution")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        packed = {name.partition("/")[2] for name in tar.getnames()}
    assert {name for name in tracked.stdout.splitlines() if (ROOT / name).exists()} - packed == set()
