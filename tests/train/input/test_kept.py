"""Pictures that stay decoded: the same pixels as decoded anew, as many as fit, shared by processes."""

from __future__ import annotations

import io
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from train.input import kept
from train.input.decoders import decoders_kept, load
from train.input.kept import KeptPixels, pixels_kept
from train.input.loader import Augmented, Batch, Prepared
from train.progressive.recipe import find_recipe
from zoo.data.pictures import Pictures
from zoo.errors import BrokenPictureError
from zoo.model.variants import find_variant

TINY = find_variant("tiny")
RECIPE = find_recipe("folder", TINY)
BATCHES = [[5, 1, 0], [3, 2, 4], [7, 6, 1]]


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    """Eight files of 30 × 26 px: PNGs in colour, grey and with a transparent part, JPEGs, and a broken one."""
    rng, paths = np.random.default_rng(0), []
    for index in range(8):
        file = io.BytesIO()
        pixels = rng.integers(0, 256, (26, 30, 4), dtype=np.uint8)
        mode = ("RGB", "L", "RGBA", "RGB")[index % 4]
        image = Image.fromarray(pixels, "RGBA").convert(mode)
        image.save(file, "JPEG" if index % 4 == 3 else "PNG")
        paths.append(tmp_path / f"{index}.png")
        paths[-1].write_bytes(file.getvalue()[: 200 if index == 6 else None])
    return Pictures("x", ("a", "b"), paths, np.arange(8) % 2)


def passes(pictures: Pictures, workers: int) -> list[list[Batch]]:
    sets = [Augmented(pictures, RECIPE, RECIPE.stages[0], 3, epoch) for epoch in range(3)]
    validated = Prepared(pictures, TINY.preprocessing.at(16))
    return [list(load(each, BATCHES, workers=workers, pin=False)) for each in (*sets, validated, validated)]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_kept_is_what_decoding_gives(pictures: Pictures, workers: int) -> None:
    anew = passes(pictures, 0)
    with decoders_kept([pictures], workers=workers, pin=False):
        again = passes(pictures, workers)
    for ours, theirs in zip(again, anew, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one.pictures, other.pictures)
            assert torch.equal(one.labels, other.labels)
            assert one.broken == other.broken
    assert any(batch.broken for batch in anew[0])


def test_what_a_head_start_has_seen_whole_changes_no_crop(pictures: Pictures) -> None:
    """The features of a head start are of whole pictures, those of training of crops: of a JPEG, other pixels."""
    cropped = Augmented(pictures, RECIPE, replace(RECIPE.stages[0], image_size=8), 3, 0)
    whole = Prepared(pictures, TINY.preprocessing.at(16))
    anew = list(load(cropped, BATCHES, workers=0, pin=False))
    with decoders_kept([pictures], workers=0, pin=False):
        list(load(whole, BATCHES, workers=0, pin=False))
        again = list(load(cropped, BATCHES, workers=0, pin=False))
    assert all(torch.equal(one.pictures, other.pictures) for one, other in zip(again, anew, strict=True))


def test_what_is_kept_is_neither_read_nor_decoded_again(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    open_picture = kept.open_picture

    def counted(stored: bytes, **named: object) -> Image.Image:
        decoded.append(str(named["name"]))
        return open_picture(stored, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(kept, "open_picture", counted)
    dataset = Augmented(pictures, RECIPE, RECIPE.stages[0], 3, 0)
    with pixels_kept([pictures]):
        for _ in range(3):
            list(load(dataset, [[0, 1, 2, 3]], workers=0, pin=False))
        assert sorted(Path(name).stem for name in decoded) == ["0", "1", "2"]  # 3 is a JPEG: of it a crop is decoded
        for path in pictures.sources[:3]:
            assert isinstance(path, Path)
            path.unlink()
        assert not any(batch.broken for batch in load(dataset, [[0, 1, 2]], workers=0, pin=False))
    assert all(len(batch.broken) == 3 for batch in load(dataset, [[0, 1, 2]], workers=0, pin=False))


def test_what_is_validated_on_is_decoded_once_jpegs_too(pictures: Pictures) -> None:
    validated = Prepared(pictures, TINY.preprocessing.at(16))
    other = replace(pictures, name="trained on")
    with pixels_kept([other, pictures]):
        (first,) = load(validated, [[0, 3, 7]], workers=0, pin=False)
        for path in pictures.sources:
            assert isinstance(path, Path)
            path.unlink()
        (again,) = load(validated, [[0, 3, 7]], workers=0, pin=False)
    assert torch.equal(first.pictures, again.pictures)
    assert not again.broken


def test_no_more_is_kept_than_fits() -> None:
    memory = KeptPixels(3, 200)
    first, second = np.full((5, 10, 3), 7, np.uint8), np.full((4, 4, 1), 9, np.uint8)
    memory.keep(2, first)
    memory.keep(0, first)
    memory.keep(1, second)
    kept_first, kept_second = memory.find(2), memory.find(1)
    assert kept_first is not None
    assert np.array_equal(kept_first, first)
    assert memory.find(0) is None, "150 of 200 bytes are taken"
    assert kept_second is None, "the next would begin at 192"
    assert memory.is_full
    with pixels_kept([]):
        pass


def test_what_one_process_keeps_another_finds() -> None:
    memory, pixels = KeptPixels(2, 1000), np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    child = multiprocessing.get_context("fork").Process(target=memory.keep, args=(1, pixels))
    child.start()
    child.join()
    found = memory.find(1)
    assert found is not None
    assert np.array_equal(found, pixels)


def test_a_process_that_was_killed_while_it_kept_something_stops_nobody(pictures: Pictures) -> None:
    memory = KeptPixels(2, 1000)
    assert memory._lock.acquire()  # never given back
    memory.keep(0, np.zeros((2, 2, 3), np.uint8))
    assert memory.find(0) is None


def test_broken_pictures_are_not_kept_and_say_the_same(pictures: Pictures) -> None:
    with pytest.raises(BrokenPictureError) as anew:
        pictures.open(6)
    dataset = Prepared(pictures, TINY.preprocessing.at(16))
    with pixels_kept([pictures]):
        for _ in range(2):
            (batch,) = load(dataset, [[6, 0]], workers=0, pin=False)
            assert batch.broken == (anew.value.problem,)
