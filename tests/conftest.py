"""Shared by all tests: one thread per worker, no network of our own, and the expensive things made once."""

from __future__ import annotations

import os

# Before torch is imported: two test workers with two threads each on two cores wait for one another at barriers.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("MPLBACKEND", "agg")

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

# A property is not a stopwatch: on a busy machine a deadline fails for no reason.
settings.register_profile("zoo", deadline=None)
settings.load_profile("zoo")


@dataclass(frozen=True)
class Answer:
    """What a command did: exit code, results and remarks."""

    code: int
    out: str
    err: str


@pytest.fixture
def zoo(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Run the real command line in this process: `zoo("train", "tiny")`."""
    from zoo.cli import main

    def run(*arguments: str | Path) -> Answer:
        monkeypatch.setattr("sys.argv", ["zoo", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capfd.readouterr()
        return Answer(code, said.out, said.err)

    return run


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_pictures(root: Path, classes: Sequence[str], count: int, *, size: int = 40, seed: int = 0) -> None:
    """Write `count` noisy JPEGs per class; each class has a colour of its own, so that it can be learnt."""
    rng = np.random.default_rng(seed)
    for index, name in enumerate(classes):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        base = np.array([(index * 97) % 256, (index * 53 + 80) % 256, (index * 151 + 30) % 256])
        for number in range(count):
            pixels = np.clip(base + rng.normal(0, 25, (size, size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:03d}.jpg")


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train/ and val/ of three classes, 12 and 6 pictures each. Copy it before you damage it."""
    root = tmp_path_factory.mktemp("pictures")
    write_pictures(root / "train", ("blue", "green", "red"), 12)
    write_pictures(root / "val", ("blue", "green", "red"), 6, seed=1)
    return root


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of `tiny`, trained briefly on the digits: a real checkpoint for every test that needs one."""
    from train.recipe import override
    from train.session import recipe_for, train_model
    from zoo.data.open import open_splits
    from zoo.model.variants import find_variant

    variant = find_variant("tiny")
    recipe = override(
        recipe_for(variant, "digits", None), variant, epochs=4, image_size=32, batch_size=32, learning_rate=1e-2
    )
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train_model(variant, recipe, *open_splits("digits"), data="digits", folder=folder, device="cpu")
    return folder
