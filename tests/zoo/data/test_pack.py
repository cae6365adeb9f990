from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.input.decoders import load
from train.input.loader import Augmented
from train.progressive.recipe import find_recipe
from zoo.data.jpeg import cut_out, read_jpeg_header
from zoo.data.open import open_splits, open_val
from zoo.data.pack import pack, pack_size
from zoo.data.shards import Packed, index_shard, is_inside
from zoo.errors import BrokenPictureError, DataError
from zoo.model.variants import find_variant


@pytest.fixture(scope="module")
def large_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, six pictures each: a large one, one turned by EXIF and one with transparency among them."""
    root = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir()
        for number in range(4):
            small = rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)
            image = Image.fromarray(small).resize((90, 60) if number else (400, 300), Image.Resampling.BICUBIC)
            image.save(root / name / f"{number}.jpg", quality=95)
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(root / name / "turned.jpg", exif=exif)
        image.convert("RGBA").save(root / name / "clear.png")
    return root


@pytest.fixture(scope="module")
def shards(large_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "shards"
    pictures = open_val(str(large_pictures))
    pack({"train": pictures, "val": pictures}, out, size=60, workers=2, shard_bytes=8_000)
    return out


def test_every_picture_is_packed_once_with_its_class(large_pictures: Path, shards: Path) -> None:
    train, _ = open_splits(str(shards))
    source = open_val(str(large_pictures))
    assert train.classes == source.classes == ("cat", "dog")
    names = (shards / "train.sources.txt").read_text().splitlines()
    assert sorted(names) == sorted(map(str, source.sources))
    assert [train.classes[label] for label in train.labels] == [Path(name).parent.name for name in names]
    assert len(list(shards.glob("train-*.tar"))) > 2


def test_small_jpegs_are_copied_and_the_rest_is_reduced_upright_and_had_in_parts(shards: Path) -> None:
    train, _ = open_splits(str(shards))
    names = [Path(name) for name in (shards / "train.sources.txt").read_text().splitlines()]
    for index, name in enumerate(names):
        data = train.read(index)
        assert isinstance(data, bytes)
        if name.name in ("1.jpg", "2.jpg", "3.jpg"):
            assert data == name.read_bytes()
        else:
            expected = {"0.jpg": (80, 60), "turned.jpg": (60, 90), "clear.png": (90, 60)}[name.name]
            assert train.open(index).size == expected
            header = read_jpeg_header(data)
            assert header is not None
            assert cut_out(data, header, (0, 0, 20, 20)).height < expected[1]


def test_shards_are_webdataset_s(shards: Path) -> None:
    """Read as its specification says: in order, files of one sample next to each other under one key."""
    classes = json.loads((shards / "shards.json").read_text())["classes"]
    seen = []
    for path in sorted(shards.glob("val-*.tar")):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            for picture, label in zip(members[::2], members[1::2], strict=True):
                assert picture.name.split(".")[0] == label.name.split(".")[0]
                handle, text = tar.extractfile(picture), tar.extractfile(label)
                assert handle
                assert text
                Image.open(io.BytesIO(handle.read())).load()
                seen.append(classes[int(text.read())])
    assert sorted(seen) == ["cat"] * 6 + ["dog"] * 6


def test_packing_again_gives_the_same_bytes(large_pictures: Path, shards: Path, tmp_path: Path) -> None:
    pictures = open_val(str(large_pictures))
    pack({"train": pictures, "val": pictures}, tmp_path / "again", size=60, workers=1, shard_bytes=8_000)
    for path in shards.glob("*.tar"):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_training_sees_the_same_pictures_from_shards_as_from_files(large_pictures: Path, shards: Path) -> None:
    recipe = find_recipe("folder", find_variant("tiny"))
    train = open_splits(str(shards))[0]
    names = (shards / "train.sources.txt").read_text().splitlines()
    source = open_val(str(large_pictures))
    same = source.at(np.array([list(map(str, source.sources)).index(name) for name in names]))
    copied = [index for index, name in enumerate(names) if Path(name).name in ("1.jpg", "2.jpg", "3.jpg")]
    for index in copied:
        one, other = (Augmented(pictures, recipe, recipe.stages[-1], 0, 3)[index] for pictures in (train, same))
        assert not isinstance(one, str)
        assert not isinstance(other, str)
        assert np.array_equal(one[0], other[0])
        assert one[1] == other[1]


def test_workers_change_nothing(shards: Path) -> None:
    recipe = find_recipe("folder", find_variant("tiny"))
    train = open_splits(str(shards))[0]
    dataset = Augmented(train, recipe, recipe.stages[0], 0, 1)
    batches = [[5, 3, 1], [0, 2, 4]]
    alone, helped = (list(load(dataset, batches, workers=workers, pin=False)) for workers in (0, 2))
    for one, other in zip(alone, helped, strict=True):
        assert np.array_equal(one.pictures.numpy(), other.pictures.numpy())
        assert np.array_equal(one.labels.numpy(), other.labels.numpy())


def test_sources_travel_to_workers(shards: Path) -> None:
    train = open_splits(str(shards))[0]
    again = pickle.loads(pickle.dumps(train))
    assert again.read(3) == train.read(3)
    assert [str(source) for source in train.sources[2:4]] == [str(train.sources[2]), str(train.sources[3])]


def test_a_broken_picture_is_left_out_and_named(picture_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "damaged"
    shutil.copytree(picture_folder, root)
    (root / "train" / "red" / "003.jpg").write_bytes(b"\xff\xd8\xff\xe0 damaged")
    train, val = open_splits(str(root))
    done = pack({"train": train, "val": val}, tmp_path / "out", size=32)
    assert (done["train"].pictures, done["val"].pictures) == (35, 18)
    assert "003.jpg" in done["train"].broken[0]
    assert len(open_splits(str(tmp_path / "out"))[0]) == 35


def test_a_missing_or_cut_shard_is_an_error(shards: Path, tmp_path: Path) -> None:
    root = tmp_path / "cut"
    shutil.copytree(shards, root)
    path = root / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(DataError, match=r"train-000001\.tar is missing or incomplete"):
        open_splits(str(root))
    with pytest.raises(BrokenPictureError, match="cut off"):
        Packed(path, path.stat().st_size - 10, 100).read()


@pytest.mark.parametrize("name", ["shards.json", "train.index.npy"])
def test_a_damaged_manifest_or_index_is_an_error(name: str, shards: Path, tmp_path: Path) -> None:
    root = tmp_path / "damaged"
    shutil.copytree(shards, root)
    (root / name).write_bytes(b"{}")
    with pytest.raises(DataError, match=name):
        open_splits(str(root))


def with_header(rows: bytes, header: bytes) -> bytes:
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + rows


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"{", b"("),
        (b"'shape'", b"'shape"),
        (b"'<u8'", b"'<08'"),
        (b"<u4", b">u4"),
        (b"{", b"-" * 9000 + b"{"),
        (b"(", b""),
    ],
)
def test_an_index_whose_header_is_damaged_is_an_error(
    before: bytes, after: bytes, shards: Path, tmp_path: Path
) -> None:
    """Python's parser, which NumPy asks, fails by a TokenError, SyntaxError or MemoryError."""
    root = tmp_path / "damaged"
    shutil.copytree(shards, root)
    path = root / "train.index.npy"
    data = path.read_bytes()
    begin = 10 + int.from_bytes(data[8:10], "little")
    header, rows = data[10:begin], data[begin:]
    path.write_bytes(with_header(rows, header))
    open_splits(str(root))
    path.write_bytes(with_header(rows, header.replace(before, after, 1)))
    with pytest.raises(DataError, match=r"train\.index\.npy is not readable"):
        open_splits(str(root))


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "..", "../x", "a/../x", "a/..", "C:x", "a\\b", "http://x/y", "a\n/../b"]
)
def test_a_manifest_names_nothing_outside_its_folder(name: str, shards: Path, tmp_path: Path) -> None:
    assert not is_inside(name)
    root = tmp_path / "elsewhere"
    shutil.copytree(shards, root)
    manifest = json.loads((root / "shards.json").read_text())
    manifest["splits"]["val"]["shards"][0]["file"] = name
    (root / "shards.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"shards\.json is not readable: splits\.val\.shards\[0\]\.file is .* inside"):
        open_splits(str(root))


@pytest.mark.parametrize("name", ["a", "a/b.tar", "..a", "a..", "a/..b/c", "./a", "train 0.tar", "ä#0.tar"])
def test_names_inside_a_folder_are_taken(name: str) -> None:
    assert is_inside(name)


def test_a_manifest_of_another_format_is_named(shards: Path, tmp_path: Path) -> None:
    root = tmp_path / "later"
    shutil.copytree(shards, root)
    manifest = json.loads((root / "shards.json").read_text())
    (root / "shards.json").write_text(json.dumps(manifest | {"format": "zoo-shards-9"}))
    with pytest.raises(DataError, match="is not of format zoo-shards-1"):
        open_splits(str(root))


def test_brackets_in_brackets_are_no_manifest(shards: Path, tmp_path: Path) -> None:
    root = tmp_path / "deep"
    shutil.copytree(shards, root)
    (root / "shards.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"shards\.json is not readable"):
        open_splits(str(root))


def test_a_shard_named_longer_than_files_are_is_missing(shards: Path, tmp_path: Path) -> None:
    root = tmp_path / "long"
    shutil.copytree(shards, root)
    manifest = json.loads((root / "shards.json").read_text())
    manifest["splits"]["train"]["shards"][0]["file"] = "x" * 5000
    (root / "shards.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="is missing or incomplete"):
        open_splits(str(root))


def test_an_index_of_another_pack_is_an_error(shards: Path, tmp_path: Path) -> None:
    root = tmp_path / "mixed"
    shutil.copytree(shards, root)
    np.save(root / "train.index.npy", np.load(root / "train.index.npy")[1:])
    with pytest.raises(DataError, match="does not belong"):
        open_splits(str(root))


def test_a_tar_of_something_else_is_no_shard(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"text")
    with pytest.raises(DataError, match="not a shard"):
        index_shard(path, 0)


def test_the_default_size_covers_evaluation_and_the_last_stage() -> None:
    assert {name: pack_size(find_variant(name)) for name in ("s", "m", "tiny")}["s"] == 384
    for name in ("s", "m", "b0"):
        row = find_variant(name)
        assert pack_size(row) >= max(row.eval_size, 1.15 * row.train_size - 1)


def test_the_commands_pack_train_and_evaluate(zoo: Callable, in_folder: Path, picture_folder: Path) -> None:
    packed = zoo("data", "pack", picture_folder, "-o", "shards", "--size", 32, "--json")
    assert packed.code == 0, packed.err
    said = json.loads(packed.out)
    assert (said["size"], said["splits"]["train"]["pictures"], said["splits"]["val"]["reduced"]) == (32, 36, 18)
    trained = zoo("train", "tiny", "--data", "shards", "--epochs", 4, "--image-size", 16, "--batch-size", 8)
    assert trained.code == 0, trained.err
    again = zoo("data", "pack", picture_folder, "-o", "shards")
    assert again.code == 1
    assert "not empty" in again.err
    Path("file").touch()
    onto_file = zoo("data", "pack", picture_folder, "-o", "file")
    assert onto_file.code == 1
    assert "file is a file" in onto_file.err
