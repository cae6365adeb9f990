"""What the zoo counts, plans and prints is what was recorded under tests/golden/.

A golden changes only on purpose: `pytest tests/test_goldens.py --accept-goldens` records what is found, `git diff`
shows what that changes, and the commit says why.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from train.progressive.recipe import recipe_names
from zoo.model.variants import VARIANTS

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
# A golden is read by people in a diff; what is larger belongs elsewhere. The largest has every field of every JSON.
MAX_BYTES, MAX_BYTES_IN_ALL = 60_000, 200_000
# Whose recipe a name is: the first network it takes.
NETWORKS = ("s", "m", "l", "b0")

Zoo = Callable[..., Any]
Golden = Callable[..., None]


def told(zoo: Zoo, command: str) -> str:
    """What a command prints, which must go well."""
    answer = zoo(*command.split())
    assert answer.code == 0, answer.err
    return str(answer.out)


def test_counts_of_every_network(zoo: Zoo, golden: Golden) -> None:
    """Trainable parameters at 1,000 classes, multiply-adds at the eval size."""
    rows = json.loads(told(zoo, "list --json"))
    assert [row["id"] for row in rows] == [variant.id for variant in VARIANTS]
    golden("counts.txt", "".join(f"{row['id']:<10} {row['num_params']:>12,} {row['macs']:>16,}\n" for row in rows))


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("list", "list.txt"),
        ("show s", "show-s.txt"),
        ("show resnet50", "show-resnet50.txt"),
        ("show tiny --image-size 64", "show-tiny-64px.txt"),
    ],
)
def test_tables_of_networks(command: str, name: str, zoo: Zoo, golden: Golden) -> None:
    golden(name, told(zoo, command))


@pytest.mark.parametrize("recipe", recipe_names())
def test_the_plan_of_every_recipe(recipe: str, zoo: Zoo, golden: Golden) -> None:
    """On the digits, so that the number of pictures never changes."""
    answers = (zoo("train", network, "--recipe", recipe, "--plan") for network in NETWORKS)
    golden(f"plan-{recipe}.txt", next(answer.out for answer in answers if answer.code == 0))


def test_a_plan_that_was_changed(zoo: Zoo, golden: Golden) -> None:
    changes = ("stages.2.image_size=256", "stages.all.accumulate=4", "optimizer=lamb", "lr_scaling=sqrt", "loss=bce")
    settings = " ".join(f"--set {change}" for change in changes)
    golden("plan-changed.txt", told(zoo, f"train s --recipe folder --epochs 8 --plan {settings}"))


@pytest.fixture
def flawed(picture_folder: Path, in_folder: Path) -> Path:
    """A folder with a broken picture, a duplicate within a split and one across them."""
    root = in_folder / "pictures"
    shutil.copytree(picture_folder, root)
    broken = root / "train" / "red" / "003.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    shutil.copy(root / "train" / "red" / "000.jpg", root / "train" / "red" / "copy.jpg")
    shutil.copy(root / "train" / "blue" / "001.jpg", root / "val" / "blue" / "leak.jpg")
    return Path(root.name)


def test_what_checking_a_folder_prints(flawed: Path, zoo: Zoo, golden: Golden) -> None:
    golden("data-check.txt", told(zoo, f"data check {flawed}"))


def test_the_table_of_an_export(tiny_run: Path, in_folder: Path, zoo: Zoo, golden: Golden) -> None:
    """Sizes, hashes and errors are those of the processor and of PyTorch's version."""
    table = told(zoo, f"export {tiny_run}/checkpoint.safetensors --num-pictures 8")
    for pattern, stand_in in (
        (r"\b\d+(\.\d+)? [kM]B\b", "SIZE kB"),
        (r"\b[0-9a-f]{12}\b", "SHA256-12DIG"),
        (r"\b\d\.\de[-+]\d\d\b", "ERROR"),
    ):
        table = re.sub(pattern, stand_in, table)
    golden("export.txt", re.sub(r" {3,}", "   ", table))


def test_what_a_report_says_of_the_committed_results(in_folder: Path, zoo: Zoo, golden: Golden) -> None:
    results = " ".join(map(str, sorted((ROOT / "benchmarks").glob("*.json"))))
    golden("bench-report.txt", told(zoo, f"bench report {results}"))


# Measured on one AMD EPYC with PyTorch held to other instructions (ATEN_CPU_CAPABILITY default and avx2, oneDNN to
# SSE41 and AVX2): validation losses differ by 2e-4 of themselves at most; PyTorch 2.11 and 2.14 give the same bits.
LOSS_TOLERANCE = 1e-3


def test_the_first_losses_of_a_seeded_run(picture_folder: Path, in_folder: Path, zoo: Zoo, golden: Golden) -> None:
    """Twelve steps of `tiny` on 36 pictures, one thread."""
    shutil.copytree(picture_folder, in_folder / "pictures")
    flags = "--seed 0 --epochs 4 --batch-size 12 --image-size 32 --lr 0.02 --workers 0 --device cpu"
    told(zoo, f"train tiny --data pictures {flags}")
    lines = [json.loads(line) for line in (in_folder / "runs" / "tiny" / "metrics.jsonl").read_text().splitlines()]
    rows = [f"epoch {line['epoch']}: train {line['train_loss']:.4f}, val {line['val_loss']:.4f}\n" for line in lines]
    golden("first-losses.txt", "".join(rows), tolerance=LOSS_TOLERANCE)


def test_goldens_are_small_and_each_has_its_test() -> None:
    sizes = {path.name: path.stat().st_size for path in GOLDEN.iterdir()}
    assert max(sizes.values()) <= MAX_BYTES
    assert sum(sizes.values()) <= MAX_BYTES_IN_ALL
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    plans = {f"plan-{recipe}.txt" for recipe in recipe_names()}
    assert [name for name in sizes if name not in plans and f'"{name}"' not in tests] == []


def test_a_golden_that_differs_is_shown_with_the_command_that_accepts_it(
    golden: Golden, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--accept-goldens"):
        pytest.skip("it would be accepted")
    recorded = (GOLDEN / "first-losses.txt").read_text(encoding="utf-8")
    with pytest.raises(pytest.fail.Exception) as failure:
        golden("first-losses.txt", recorded.replace("epoch 2", "epoch two"), tolerance=1e-3)
    assert "-epoch 2: train" in failure.value.msg
    assert "+epoch two: train" in failure.value.msg
    assert f"pytest '{request.node.nodeid}' --accept-goldens" in failure.value.msg
