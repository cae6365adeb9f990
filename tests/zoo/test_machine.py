"""Processors this process may use: those it is bound to, within every control group's quota."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.machine import environment, source_commit, usable_cores, usable_memory, usable_processors

BOUND = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, BOUND),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, BOUND),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "100000 100000",
                "sys/fs/cgroup/a/b/cpu.max": "max 1",
            },
            1,
        ),
        ({"proc/self/cgroup": "0::/host/path\n", "sys/fs/cgroup/cpu.max": "150000 100000"}, 1),
        (
            {
                "proc/self/cgroup": "3:memory:/x\n2:cpu,cpuacct:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "100000",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "2:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            BOUND,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "odd"}, BOUND),
    ],
)
def test_quotas_of_control_groups_are_kept(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert usable_processors(tmp_path) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "1048576\n"}, 1 << 20),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}, None),
        ({"proc/self/cgroup": "3:memory:/x\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "2097152"}, 2 << 20),
        ({"proc/self/cgroup": "3:memory:/x\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": str(2**63)}, None),
        ({}, None),
    ],
)
def test_limits_of_control_groups_are_kept(files: dict[str, str], expected: int | None, tmp_path: Path) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert usable_memory(tmp_path) == (machine if expected is None else expected)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process")
def test_a_process_bound_to_one_processor_uses_one() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from zoo.machine import usable_processors; print(usable_processors())"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout == "1\n"


def test_of_two_processors_that_share_a_core_one_computes(tmp_path: Path) -> None:
    for number in range(os.cpu_count() or 1):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{number}/topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text("0")
        (folder / "core_id").write_text("7")
    assert usable_cores(tmp_path) == 1
    assert usable_cores(tmp_path / "says nothing") == BOUND


def test_results_say_how_many_could_be_used() -> None:
    assert environment()["cores_usable"] == usable_processors()


def test_the_commit_of_the_sources_is_told_where_git_keeps_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = source_commit.__wrapped__()
    kept = (Path(__file__).parents[2] / ".git").exists()
    assert (re.fullmatch(r"[0-9a-f]{40}\+?", found or "") is not None) == kept
    # Sources within a repository that is not theirs have no commit: it would be somebody else's.
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setattr("zoo.machine.__file__", str(tmp_path / "zoo" / "machine.py"))
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "__init__.py").touch()
    assert source_commit.__wrapped__() is None


def test_asking_for_the_commit_writes_nothing_into_the_repository(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = tmp_path / "zoo" / "__init__.py"
    source.parent.mkdir()
    source.touch()
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for command in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "first")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    os.utime(source, (1e9, 1e9))  # git would look at it again, and note that
    before = (tmp_path / ".git" / "index").read_bytes()
    monkeypatch.setattr("zoo.machine.__file__", str(tmp_path / "zoo" / "machine.py"))
    assert re.fullmatch(r"[0-9a-f]{40}", source_commit.__wrapped__() or "")
    assert (tmp_path / ".git" / "index").read_bytes() == before
