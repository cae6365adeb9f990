from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from train.learn.job import Job
from zoo.data.fingerprint import fingerprint, name_below
from zoo.data.labels import read_labels
from zoo.data.open import count_pictures, has_split, is_held_out, open_splits, open_test, open_val, remarks
from zoo.data.pack import pack
from zoo.errors import DataError, MissingCapabilityError

Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write("labels.csv", text)`: a file of labels beside twenty pictures, 00.png to 19.png."""
    for number in range(20):
        Image.new("RGB", (8, 8), (number * 10, 0, 0)).save(tmp_path / f"{number:02d}.png")

    def put(name: str, text: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return put


def table(rows: Sequence[tuple[str, ...]], heads: str = "path,label") -> str:
    return "\n".join([heads, *(",".join(row) for row in rows)]) + "\n"


PLAIN = [(f"{number:02d}.png", "ab"[number % 2]) for number in range(20)]


def test_a_csv_is_split_by_class_like_a_folder(write: Write) -> None:
    data = str(write("labels.csv", table(PLAIN)))
    train, val = open_splits(data)
    assert train.classes == val.classes == ("a", "b")
    assert (np.bincount(train.labels).tolist(), np.bincount(val.labels).tolist()) == ([8, 8], [2, 2])
    assert not train.multi_label
    assert open_val(data, seed=0).sources == val.sources
    assert len(open_val(data)) == 20
    assert is_held_out(data)
    assert not has_split(data)
    assert count_pictures(data)[:6] == (16, 4, 0, 2, True, False)
    assert train.open(0).size == (8, 8)


def test_what_was_held_out_stays_where_a_picture_is_added(write: Write) -> None:
    before = {path.name for path in open_splits(str(write("labels.csv", table(PLAIN[:-1]))))[1].sources}
    after = {path.name for path in open_splits(str(write("labels.csv", table(PLAIN))))[1].sources}
    assert len(before - after) <= 1


def test_a_column_names_the_splits(write: Write) -> None:
    splits = ["train"] * 10 + ["Valid"] * 4 + ["test"] * 6
    rows = [(*row, split) for row, split in zip(PLAIN, splits, strict=True)]
    data = str(write("labels.csv", table(rows, "path,label,split")))
    train, val = open_splits(data)
    test = open_test(data, train.classes)
    assert test
    assert [len(split) for split in (train, val, test, open_val(data))] == [10, 4, 6, 4]
    assert has_split(data)
    with pytest.raises(DataError, match="divided already"):
        open_splits(data, group_by="parent")
    only = str(write("test.csv", table([row for row in rows if row[2] == "test"], "path,label,split")))
    assert len(open_val(only)) == 6
    with pytest.raises(DataError, match="no pictures of the split train"):
        open_splits(only)


def test_groups_stay_together(write: Write, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"p{number // 4}").mkdir(exist_ok=True)
        shutil.move(tmp_path / f"{number:02d}.png", tmp_path / f"p{number // 4}" / f"{number:02d}.png")
    rows = [(f"p{number // 4}/{name}", label) for number, (name, label) in enumerate(PLAIN)]
    train, val = open_splits(str(write("labels.csv", table(rows))), group_by="parent")
    folders = [{Path(str(source)).parent.name for source in split.sources} for split in (train, val)]
    assert folders[0].isdisjoint(folders[1])
    assert len(val) == 4


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffpath,label\r\n00.png,a\r\n01.png,b\r\n\r\n",  # as “CSV UTF-8” of a spreadsheet
        "path;label\r\n00.png;a\r\n01.png;b\r\n",  # where commas are decimal points
        "sep=;\r\nPath;Label\r\n00.png; a\r\n01.png;b\r\n;\r\n",
        "label\tother\tpath\na\t1,5\t00.png\nb\t\t./01.png\n",
        'path,label\n"00.png",a\n01.png,"b"\n01.png,b\n',
    ],
)
def test_files_of_spreadsheets_are_read(text: str, write: Write) -> None:
    pictures = read_labels(write("labels.csv", text)).splits[""]
    assert pictures.classes == ("a", "b")
    assert pictures.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has nothing"),
        ("path,label\n", "names no pictures"),
        ("00.png,a\n01.png,b\n", r"has 00.png, a. Its columns are path, label"),
        ("path,label,labels\n00.png,a,a\n", "has path, label, labels"),
        ("path,label\n00.png,a\n01.png\n", "line 3 has 1 cells, and the first line 2"),
        ("path;label\n00.png;a;b\n01.png;b\n", "line 2 has 3 cells.*quotation marks"),
        ('path,label\n00.png,a\n01.png,"b\n', "line 3 is not readable: unexpected end of data"),
        ("path,label\n00.png,a\n,b\n", "line 3 has no path"),
        ("path,label\n00.png,a\n01.png, \n", "line 3: 01.png has no label.*call the column labels"),
        ("path,label\n00.png,a\n01.png,b\n./00.png,b\n", "00.png is a in line 2 and b in line 4.*cat;dog"),
        ("path,label,split\n00.png,a,train\n01.png,b,train\n00.png,a,val\n", r"a \(train\) in line 2 and a \(val\)"),
        ("path,label,split\n00.png,a,train\n01.png,b,dev\n", "line 3 has the split 'dev'. There are train, val, valid"),
        ("path,label,split\n00.png,a,train\n01.png,b,\n", "line 3 names no split, but line 2 does"),
        ("path,label\n00.png,a\n01.png,a\n", r"one class only \(a\)"),
        ("path,label\nx.png,a\ny.png,b\n", r"none of its 2 pictures is there, such as x.png \(line 2\)"),
        ("path,label\nd\\x.png,a\ny.png,b\n", r"none of its .* Write / instead of"),
        ("path,label\n00.png,caf\u00e9\n01.png,cafe\u0301\n", "Unicode writes in two ways"),
        ("path,label\n00.png,a\n01.png,caf\u00e9\n".encode("cp1252"), "line 3 is not UTF-8"),
        ("path,label\n00.png,a\n".encode("utf-16"), "line 1 is not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_csv_is_said_with_its_line(text: str | bytes, message: str, write: Write) -> None:
    with pytest.raises(DataError, match=message):
        read_labels(write("labels.csv", text))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is no JSON"),
        ("[1]", "line 2 is no object"),
        ('{"path": "01.png"}', "line 2 has path"),
        ('{"path": 1, "label": "a"}', "line 2: a path is a text"),
        ('{"path": "01.png", "label": {"a": 1}}', "line 2: a path is a text"),
        ('{"path": "01.png", "label": null}', "line 2: 01.png has no label"),
    ],
)
def test_what_is_wrong_with_a_json_line_is_said(line: str, message: str, write: Write) -> None:
    with pytest.raises(DataError, match=message):
        read_labels(write("labels.jsonl", f'{{"path": "00.png", "label": "a"}}\n{line}\n'))


def test_a_missing_file_is_no_folder() -> None:
    with pytest.raises(DataError, match=r"There is no file nowhere\.csv"):
        open_splits("nowhere.csv")


def test_pictures_that_are_not_there_are_left_out_and_told(write: Write) -> None:
    train, val = open_splits(str(write("labels.csv", table([*PLAIN, ("gone.png", "a")]))))
    assert len(train) + len(val) == 20
    assert "1 of the file's pictures, which are not there, such as gone.png (line 22)" in remarks(train, val)[0]


SEVERAL = [["cat", "dog"], ["dog"], [], ["bird", "cat", "dog"], ["cat"]]
TARGETS = [[0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]]


def as_csv(write: Write) -> Path:
    return write("several.csv", table([(f"{at:02d}.png", ";".join(names)) for at, names in enumerate(SEVERAL)]))


def as_json_lines(write: Write) -> Path:
    lines = [json.dumps({"path": f"{at:02d}.png", "labels": names}) for at, names in enumerate(SEVERAL)]
    return write("several.jsonl", "\r\n".join(lines))


def as_parquet(write: Write) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = write("several.parquet", b"")
    columns: dict[str, Any] = {"id": [7] * 5, "path": [f"{at:02d}.png" for at in range(5)], "labels": SEVERAL}
    parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("form", [as_csv, as_json_lines, as_parquet])
def test_several_labels_and_none_become_targets(form: Callable[[Write], Path], write: Write) -> None:
    pictures = read_labels(form(write)).splits[""]
    assert pictures.classes == ("bird", "cat", "dog")
    assert pictures.targets is not None
    assert pictures.targets.astype(int).tolist() == TARGETS
    assert pictures.class_counts().tolist() == [1, 3, 3]
    assert pictures.places_of(3) == (0, 1, 2)
    assert pictures.at(np.array([3, 2])).targets.astype(int).tolist() == [TARGETS[3], TARGETS[2]]  # type: ignore[union-attr]


def test_a_column_called_labels_says_that_there_may_be_several(write: Write) -> None:
    assert read_labels(write("one.csv", table(PLAIN, "path,labels"))).splits[""].multi_label
    assert read_labels(write("none.csv", "path,labels\n00.png,a\n01.png,\n02.png,b\n")).splits[""].multi_label


def test_a_parquet_file_without_pyarrow_says_what_to_install(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingCapabilityError, match=r"zoo\[parquet\]"):
        read_labels(write("labels.parquet", b"PAR1"))


def test_a_damaged_parquet_file_is_named(write: Write) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=r"labels.parquet is not readable"):
        read_labels(write("labels.parquet", b"PAR1"))


def test_several_labels_are_parted_so_that_every_class_is_on_both_sides(write: Write) -> None:
    names = ["a;b", "a", "b", "a;c", ""]
    rows = [(f"{number:02d}.png", names[number % 5]) for number in range(20)]
    train, val = open_splits(str(write("several.csv", table(rows))))
    assert (train.class_counts() > 0).all()
    assert (val.class_counts() > 0).all()
    said = remarks(train, val)
    assert said == ("Several labels a picture: 1.20 on average, 2 at most; 4 pictures have none.",)


def test_a_moved_copy_is_the_same_data(write: Write, tmp_path: Path) -> None:
    write("labels.csv", table(PLAIN))
    copy = shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-copy")
    here, there = (read_labels(root / "labels.csv").splits[""] for root in (tmp_path, copy))
    assert fingerprint(here) == fingerprint(there)
    assert name_below(here, 3) == name_below(there, 3) == "03.png"


def test_a_path_may_leave_the_folder(write: Write, tmp_path: Path) -> None:
    write("x.csv", "")
    (tmp_path / "deep").mkdir()
    text = f"path,label\n../00.png,a\n{tmp_path / '01.png'},b\n"
    pictures = read_labels(write("deep/labels.csv", text)).splits[""]
    assert [pictures.open(index).getpixel((0, 0)) for index in range(2)] == [(0, 0, 0), (10, 0, 0)]


def test_a_relative_and_an_absolute_path_of_one_picture_are_one(write: Write, tmp_path: Path) -> None:
    text = f"path,label\n00.png,a\n01.png,b\n{tmp_path / '00.png'},"
    pictures = read_labels(write("labels.csv", f"{text}a\n")).splits[""]
    assert len(pictures) == 2 and pictures.left_out == ("1 of the file's lines, which repeat another",)
    with pytest.raises(DataError, match=r"00\.png is a in line 2 and b in line 4"):
        read_labels(write("labels.csv", f"{text}b\n"))


def test_several_labels_do_not_go_into_shards(write: Write, tmp_path: Path) -> None:
    train, val = open_splits(str(as_csv(write)))
    with pytest.raises(DataError, match="Shards hold one class"):
        pack({"train": train, "val": val}, tmp_path / "out", size=32)


def test_a_run_with_other_labels_is_another_run(write: Write) -> None:
    """The state of a run tells targets apart, as it does classes."""
    from train.learn.state import _identity
    from train.options import TrainOptions
    from train.processes.distributed import ALONE

    def identity(text: str) -> Any:
        from train.learn.job import make_job

        options = TrainOptions(model="tiny", data=str(write("labels.csv", text)), device="cpu", workers=0)
        job: Job = make_job(options, ALONE, None, None, None, None)
        return _identity(job)["labels"]

    several = [(name, f"{label};c") for name, label in PLAIN]
    assert len({identity(table(PLAIN)), identity(table(several)), identity(table(several[::-1]))}) == 3
