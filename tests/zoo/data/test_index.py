"""Tar files that others wrote, by WebDataset's rules, become readable where they lie."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.data.index import index_folder
from zoo.data.open import open_splits
from zoo.data.tar_samples import Sample, split_name, walk_samples
from zoo.errors import DataError


def picture(number: int, kind: str = "jpeg") -> bytes:
    """An 8 × 8 picture whose colour says its number."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], *, format: int = tarfile.GNU_FORMAT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def samples(numbers: Sequence[int], *, classes: int = 3) -> list[tuple[str, bytes]]:
    """KEY.jpg, KEY.cls and KEY.json of each number; the class is its remainder."""
    members = []
    for number in numbers:
        key = f"{number:06d}"
        members += [
            (f"{key}.jpg", picture(number)),
            (f"{key}.cls", str(number % classes).encode()),
            (f"{key}.json", b'{"width": 8}'),
        ]
    return members


def test_tar_files_with_a_split_are_read(tmp_path: Path, zoo: Callable) -> None:
    write_tar(tmp_path / "imagenet1k-train-0000.tar", samples(range(10)))
    write_tar(tmp_path / "imagenet1k-train-0001.tar", samples(range(10, 16)), format=tarfile.PAX_FORMAT)
    write_tar(tmp_path / "imagenet1k-validation-00.tar", samples(range(20, 26)))
    write_tar(tmp_path / "imagenet1k-test-00.tar", samples(range(30, 33)))
    (tmp_path / "classes.txt").write_text("red fox\ngrey wolf\ncoyote\n")
    with pytest.raises(DataError, match=r"tar files such as imagenet1k-\w+-\d+\.tar") as failure:
        open_splits(str(tmp_path))
    assert "zoo data index" in failure.value.hint
    answer = zoo("data", "index", tmp_path, "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out) == {
        "shards": str(tmp_path),
        "classes": 3,
        "splits": {"train": {"pictures": 16, "shards": 2}, "val": {"pictures": 6, "shards": 1}},
        "held_out": False,
        "left_out": ["imagenet1k-test-00.tar"],
    }
    train, val = open_splits(str(tmp_path))
    assert train.classes == ("red fox", "grey wolf", "coyote")
    assert [train.read(index) for index in range(16)] == [picture(number) for number in range(16)]
    assert [val.read(index) for index in range(6)] == [picture(number) for number in range(20, 26)]
    assert train.labels.tolist() == [number % 3 for number in range(16)]
    again = zoo("data", "index", tmp_path)
    assert again.code == 1
    assert "is there already" in again.err


def test_sub_folders_say_the_split_and_a_file_the_classes(tmp_path: Path, zoo: Callable) -> None:
    for split, numbers in (("train", range(4)), ("val", range(4, 8))):
        write_tar(tmp_path / "shards" / split / "00.tar", samples(numbers, classes=2))
    (tmp_path / "names").write_text("cat\ndog")
    answer = zoo("data", "index", tmp_path / "shards", "--classes", tmp_path / "names")
    assert answer.code == 0, answer.err
    assert "train: 4 pictures of 2 classes, 1 tar files" in answer.out
    train, val = open_splits(str(tmp_path / "shards"))
    assert train.classes == ("cat", "dog")
    assert val.read(0) == picture(4)
    assert zoo("data", "check", tmp_path / "shards").code == 0


@pytest.mark.parametrize("names", [("train-0.tar", "train-1.tar"), ("a.tar", "b.tar")])
def test_without_a_split_a_fifth_is_held_out_by_name(names: tuple[str, str], tmp_path: Path, zoo: Callable) -> None:
    write_tar(tmp_path / names[0], samples(range(60)))
    write_tar(tmp_path / names[1], samples(range(60, 100)))
    answer = zoo("data", "index", tmp_path)
    assert answer.code == 0, answer.err
    assert "a fifth of the same files" in answer.out
    train, val = open_splits(str(tmp_path))
    assert train.classes == ("0", "1", "2")
    assert np.bincount(val.labels).tolist() == [7, 7, 7]  # of 34, 33 and 33
    seen = [pictures.read(index) for pictures in (train, val) for index in range(len(pictures))]
    assert sorted(map(str, seen)) == sorted(str(picture(number)) for number in range(100))
    # Pictures that are added to one class move none of another.
    held_out = {val.read(index) for index in range(len(val)) if val.labels[index] != 2}
    write_tar(tmp_path / names[1].replace("1", "2").replace("b", "c"), samples(range(101, 131, 3)))
    (tmp_path / "shards.json").unlink()
    index_folder(tmp_path)
    _, more = open_splits(str(tmp_path))
    assert {more.read(index) for index in range(len(more)) if more.labels[index] != 2} == held_out
    assert np.bincount(more.labels).tolist() == [7, 7, 9]


def test_keys_end_at_the_first_dot_of_the_base_name(tmp_path: Path) -> None:
    assert split_name("a/b.c.jpg") == ("a/b", "c.jpg")
    assert split_name("a.b/c/d.JPEG") == ("a.b/c/d", "jpeg")
    assert split_name("./0001.cls") == ("./0001", "cls")
    assert split_name("a/._b.jpg") is None
    assert split_name("no/extension") is None
    assert split_name("__meta__/info.json") is None
    write_tar(
        tmp_path / "0.tar",
        [
            ("n01.440/x.cls", b"1\n"),  # the class may come first
            ("n01.440/x.JPG", picture(1)),
            ("n02/x.jpg", picture(2)),  # the same name in another folder is another sample
            ("n02/x.cls", b" 2 "),
            ("n02/y.c.jpg", picture(3)),
            ("n02/y.c.cls", b"3"),
            ("n03/z.seg.png", picture(9)),  # not the picture, which is named exactly
            ("n03/z.webp", picture(4)),
            ("n03/z.cls", b"4"),
            ("n04/t.tif", picture(5, "tiff")),  # broken when it is read, as in a folder
            ("n04/t.cls", b"5"),
            ("README.txt", b"neither picture nor class"),
            ("n03/._z.jpg", b"what macOS leaves"),
        ],
    )
    found = list(walk_samples(tmp_path / "0.tar"))
    assert [(one.key, one.label) for one in found] == [
        ("n01.440/x", 1),
        ("n02/x", 2),
        ("n02/y", 3),
        ("n03/z", 4),
        ("n04/t", 5),
    ]
    content = (tmp_path / "0.tar").read_bytes()
    assert [content[one.offset : one.offset + one.size] for one in found[:4]] == [
        picture(number) for number in (1, 2, 3, 4)
    ]
    assert isinstance(found[0], Sample)


def test_long_and_foreign_names_are_found(tmp_path: Path) -> None:
    key = "Fuchs für " + "f" * 150
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        write_tar(tmp_path / "0.tar", [(f"{key}.jpg", picture(1)), (f"{key}.cls", b"0")], format=format)
        (found,) = walk_samples(tmp_path / "0.tar")
        assert found.key == key
        assert (tmp_path / "0.tar").read_bytes()[found.offset : found.offset + found.size] == picture(1)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.jpg", b"x")], "the sample a has 0 classes; its files are jpg"),
        ([("a.cls", b"1")], "the sample a has 0 pictures"),
        ([("a.jpg", b"x"), ("b.jpg", b"x"), ("a.cls", b"0"), ("b.cls", b"0")], "the sample a has 0 classes"),
        (
            [("a.jpg", b"x"), ("a.png", b"x"), ("a.cls", b"0")],
            "the sample a has 2 pictures; its files are cls, jpg, png",
        ),
        ([("a.b.jpg", b"x"), ("a.b.cls", b"0"), ("a.c.jpg", b"x"), ("a.c.cls", b"0")], "the sample a has 2 pictures"),
        ([("a.jpg", b"x"), ("a.JPG", b"x"), ("a.cls", b"0")], "a file twice"),
        ([("a.jpg", b"x"), ("a.cls", b"-1")], "the class of a is '-1', not a whole number"),
        ([("a.jpg", b"x"), ("a.cls", b"cat")], "the class of a is 'cat'"),
        ([("a.jpg", b"x"), ("a.cls", b"4294967296")], "the class of a is '4294967296'"),
        ([("a.jpg", b"x"), ("a.cls", b"0" * 20 + b"7")], "not a whole number"),
        ([("a.jpg", b"x"), ("a.cls", b"4000000000")], "labels up to 4000000000, which would be 4,000,000,001 classes"),
        ([("a.json", b"{}")], "have no samples"),
    ],
)
def test_samples_that_cannot_be_used_say_why(members: list[tuple[str, bytes]], message: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", members)
    with pytest.raises(DataError, match=message) as failure:
        index_folder(tmp_path)
    assert failure.value.hint
    assert not (tmp_path / "shards.json").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "has no tar files"),
        (["train-0.tar", "extra-0.tar"], r"extra-0\.tar names no split"),
        (["val-0.tar"], "no tar files of train"),
        (["train/val-0.tar"], "names train and val"),
        (["train-00:00.tar"], "has a colon"),
    ],
)
def test_unclear_splits_are_errors(names: list[str], message: str, tmp_path: Path) -> None:
    for name in names:
        write_tar(tmp_path / name, samples(range(3)))
    with pytest.raises(DataError, match=message):
        index_folder(tmp_path)


def test_a_split_is_found_without_a_separator(tmp_path: Path) -> None:
    write_tar(tmp_path / "train000.tar", samples(range(6)))
    write_tar(tmp_path / "Val2017.tar", samples(range(6, 9)))
    assert index_folder(tmp_path).pictures == {"train": 6, "val": 3}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("cat\ndog\n", "2 different names in 2 lines, labels go up to 2"),
        ("cat\ndog\ncat\n", "2 different names in 3 lines"),
        ("cat\n \t\r\ndog\n", "line 2 is empty"),
        ("\ncat\ndog\nowl\n", "line 1 is empty"),  # left out, it would move every class by one
        ("\n", "line 1 is empty"),
        (b"\xff\xfe", "not readable"),
        (None, "not readable"),
    ],
)
def test_classes_that_do_not_fit_are_errors(names: str | bytes | None, message: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", samples(range(30)))
    path = tmp_path / "classes.txt"
    if names is not None:
        path.write_bytes(names.encode() if isinstance(names, str) else names)
    with pytest.raises(DataError, match=message):
        index_folder(tmp_path, classes_file=path)


def test_names_of_classes_are_the_lines_of_a_file(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", samples(range(30)))
    (tmp_path / "classes.txt").write_bytes("\ufeffcat\r\ndog\x0c, wild\r\nowl\r\n\r\n".encode())
    assert index_folder(tmp_path).classes == ("cat", "dog\x0c, wild", "owl")


def test_one_class_or_too_few_pictures_are_errors(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", samples(range(30), classes=1))
    with pytest.raises(DataError, match="one class only"):
        index_folder(tmp_path)
    write_tar(tmp_path / "train-0.tar", samples(range(2)))
    with pytest.raises(DataError, match="too few to hold a fifth out"):
        index_folder(tmp_path)


def test_compressed_and_cut_off_files_are_no_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", samples(range(9)))
    whole = (tmp_path / "train-0.tar").read_bytes()
    with tarfile.open(tmp_path / "train-0.tar", "w:gz"):
        pass
    with pytest.raises(DataError, match="is not a shard") as failure:
        index_folder(tmp_path)
    assert "uncompressed" in failure.value.hint
    second = whole.index(b"000001.jpg")
    damaged = whole[:second] + b"\xff" + whole[second + 1 :]
    for content in (whole[:2_000], whole[: second + 100], whole[:second], whole[: second + 600], damaged):
        (tmp_path / "train-0.tar").write_bytes(content)
        with pytest.raises(DataError, match=r"is not a shard: .*(cut off|unexpected end)"):
            index_folder(tmp_path)


def test_what_stands_behind_the_end_of_a_tar_file_is_never_lost_silently(tmp_path: Path) -> None:
    """Two files joined by `cat`: tarfile, GNU tar and WebDataset read the first one only."""
    for name, numbers in (("a", range(30)), ("b", range(30, 60))):
        write_tar(tmp_path / "parts" / name, samples(numbers))
    first, second = ((tmp_path / "parts" / name).read_bytes() for name in "ab")
    shard = tmp_path / "train-0.tar"
    shard.write_bytes(first + second)
    with pytest.raises(DataError, match=r"train-0\.tar goes on behind its end mark at byte") as failure:
        index_folder(tmp_path)
    assert "tar --concatenate" in failure.value.hint
    assert not (tmp_path / "shards.json").exists()
    shard.write_bytes(first + bytes(3_000_000))  # padding of any length is no content
    assert sum(index_folder(tmp_path).pictures.values()) == 30


def test_tar_files_joined_by_tar_are_read_whole(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", samples(range(30)))
    with tarfile.open(tmp_path / "train-0.tar", "a") as joined:  # writes over the end mark, as `tar --concatenate` does
        for name, data in samples(range(30, 60)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            joined.addfile(member, io.BytesIO(data))
    assert sum(index_folder(tmp_path).pictures.values()) == 60


def test_what_was_indexed_is_read_over_http(tmp_path: Path, serve_folder: Callable) -> None:
    write_tar(tmp_path / "a folder" / "train 0.tar", samples(range(9)))
    write_tar(tmp_path / "a folder" / "val#0.tar", samples(range(9, 15)))
    index_folder(tmp_path)
    with serve_folder(tmp_path) as server:
        for far, near in zip(open_splits(server.url), open_splits(str(tmp_path)), strict=True):
            assert [far.read(index) for index in range(len(far))] == [near.read(index) for index in range(len(near))]
            assert np.array_equal(far.labels, near.labels)
