"""Networks of one's own: a row in a file is a network everywhere, and a wrong one says what is wrong where."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.errors import RowError, ZooError
from zoo.model.counts import count_macs, count_params
from zoo.model.row_files import load_row, write_row
from zoo.model.scaling import scale_by_paper
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS, find_variant

# All a person writes for a network of their own: the file the docs show.
DOCS = Path(__file__).parents[3] / "docs" / "your-own-network.md"
OWN = re.sub(r" +#.*", "", DOCS.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0])


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.id)
def test_every_row_survives_its_file(variant: Variant, tmp_path: Path) -> None:
    write_row(tmp_path / "row.toml", variant, "a comment")
    assert load_row(tmp_path / "row.toml") == variant


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('id = "mynet"', "", "id is missing"),
        ('id = "mynet"', 'id = "my net"', "letters, digits"),
        ("stem_channels = 8", "stem_chanels = 8", "stem_channels"),
        ("stem_channels = 8", 'stem_channels = "8"', "a whole number"),
        ("stem_channels = 8", "stem_channels = true", "a whole number"),
        ("head_channels = 32", "head_channels = 0", "only a ResNet"),
        ('operator = "mbconv"', 'operator = "mbcnv"', "stages[1].operator"),
        ('operator = "mbconv"', 'operator = "bottleneck"', "not one of torchvision's ResNets"),
        ("stride = 2", "stride = 3", "stages[0].stride is 3; expected one of 1, 2"),
        ("kernel_size = 5", "kernel_size = 4", "stages[1].kernel_size"),
        ("se_ratio = 0.25", "se_ratio = 25", "a number from 0 to 1"),
        ("eval_size = 40", "eval_size = 640", "above max_size 480"),
        ("eval_size = 40", "eval_size = 40\n[preprocessing]\nimage_size = 41", "differs from eval_size 40"),
        ("eval_size = 40", 'eval_size = 40\n[preprocessing]\nresize = "crop"', "resize_size"),
        ("eval_size = 40", "eval_size = 40\n[preprocessing]\nstd = [1, 0, 1]", "above 0"),
        (
            "eval_size = 40",
            "eval_size = 40\n[preprocessing]\nmean = [nan, 0, 1]",
            "is nan, 0, 1; expected numbers from 0 to 255",
        ),
        ("eval_size = 40", "eval_size = 40\n[preprocessing]\nmean = [128]", "RGB with 1 values of mean and 3 of std"),
        ("eval_size = 40", "eval_size = 4O", "not TOML"),
    ],
)
def test_a_wrong_row_says_what_and_where(old: str, new: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mynet.toml"
    path.write_text(OWN.replace(old, new, 1))
    with pytest.raises(ZooError) as failure:
        load_row(path)
    assert said in str(failure.value)
    assert failure.value.hint


def test_a_missing_file_and_no_stages(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="no row file"):
        load_row(tmp_path / "none.toml")
    (tmp_path / "empty.toml").write_text(OWN.partition("[[stages]]")[0])
    with pytest.raises(ZooError, match="stages is missing"):
        load_row(tmp_path / "empty.toml")


def test_one_file_makes_a_network_for_every_command(zoo: Callable, in_folder: Path) -> None:
    """Shown, trained, exported, classified with: nothing is registered anywhere."""
    Path("mynet.toml").write_text(OWN)
    shown = zoo("show", "mynet.toml", "--json")
    assert shown.code == 0, shown.err
    assert json.loads(shown.out)["num_params"] == count_params(load_row(Path("mynet.toml")))

    before = zoo("export", "mynet.toml")
    assert before.code == 1
    assert "zoo train mynet.toml" in before.err

    trained = zoo("train", "mynet.toml", "--epochs", "4", "--image-size", "24", "--device", "cpu", "--json")
    assert trained.code == 0, trained.err
    assert json.loads(trained.out)["checkpoint"] == "runs/mynet/checkpoint.safetensors"

    exported = zoo("export", "mynet.toml", "-o", "out", "--json")
    assert exported.code == 0, exported.err
    assert zoo("sample", "--count", "1").code == 0
    by_file = zoo("evaluate", "mynet.toml", "--json")
    assert by_file.code == 0, by_file.err
    Path("mynet.toml").unlink()  # what was trained needs the file no longer
    for artifact in ("out/mynet.onnx", "runs/mynet/checkpoint.safetensors", "mynet"):
        answer = zoo("predict", artifact, *Path("pictures").glob("*/*.png"), "--json")
        assert answer.code == 0, answer.err
        assert len(json.loads(answer.out)["predictions"]) == 5


def test_a_file_cannot_take_the_name_of_a_network_of_the_zoo(zoo: Callable, in_folder: Path) -> None:
    Path("mine.toml").write_text(OWN.replace("mynet", "s"))
    answer = zoo("train", "mine.toml", "--plan")
    assert answer.code == 1
    assert "belongs to a network of the zoo" in answer.err


def test_scale_writes_a_row_that_works(zoo: Callable, in_folder: Path) -> None:
    answer = zoo("scale", "s", "--depth", "1.22", "--width", "1.14", "-o", "big.toml", "--json")
    assert answer.code == 0, answer.err
    said = json.loads(answer.out)
    row = load_row(Path("big.toml"))
    assert (said["id"], said["file"]) == ("big", "big.toml")
    assert said["num_params"] == count_params(row) > 1.4 * count_params(find_variant("s"))
    assert said["macs"] == count_macs(row)
    assert [stage.num_layers for stage in row.stages] == [3, 5, 5, 8, 13, 23]
    assert "zoo show bigger.toml" in zoo("scale", "s", "--depth", "2", "-o", "bigger.toml").out
    again = zoo("scale", "s", "-o", "big.toml")
    assert (again.code, load_row(Path("big.toml"))) == (1, row)
    assert tomllib.loads(Path("big.toml").read_text())["id"] == "big"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("s", "--depth", "0", "-o", "x.toml"), "0.0 is not in the range 0.1<=x<=10"),
        (("resnet50", "-o", "x.toml"), "no EfficientNet"),
        (("s", "-o", "x.yaml"), "does not end in .toml"),
        (("s", "-o", "x.toml", "--id", "two words"), "letters, digits"),
        (("s", "-o", "m.toml"), "belongs to a network of the zoo"),
    ],
)
def test_wrong_scaling_leaves_nothing(zoo: Callable, in_folder: Path, arguments: tuple[str, ...], said: str) -> None:
    answer = zoo("scale", *arguments)
    assert answer.code in (1, 2)
    assert said in answer.err
    assert not list(in_folder.iterdir())


@pytest.mark.parametrize("factor", [0.0, 10.5, math.nan])
def test_a_factor_out_of_range_is_refused_in_python_too(factor: float) -> None:
    with pytest.raises(RowError, match=r"--width is .*; expected a number from 0\.1 to 10"):
        scale_by_paper(find_variant("s"), "x", width=factor)


def test_scaling_by_one_changes_nothing_but_the_name() -> None:
    for id in ("s", "b0", "v1-b0", "lite0"):
        base = find_variant(id)
        same = scale_by_paper(base, "same")
        assert same.stages == base.stages
        assert count_params(same) == count_params(base)


def test_the_inference_size_is_capped() -> None:
    """§3.3: never above 480 px, however much more resolution is asked for; training keeps its share of it."""
    big = scale_by_paper(find_variant("s"), "big", resolution=2)
    assert (big.eval_size, big.preprocessing.image_size) == (480, 480)
    assert big.train_size == 375


@given(depth=st.floats(1.0, 4.0), width=st.floats(0.5, 3.0))
def test_deeper_networks_grow_later_stages_more(depth: float, width: float) -> None:
    base = find_variant("s")
    scaled = scale_by_paper(base, "x", depth=depth, width=width)
    growth = [new.num_layers / old.num_layers for new, old in zip(scaled.stages, base.stages, strict=True)]
    assert growth[5] >= depth
    assert all(new.num_layers >= old.num_layers for new, old in zip(scaled.stages, base.stages, strict=True))
    assert all(stage.out_channels % 8 == 0 for stage in scaled.stages)
    smaller = scale_by_paper(base, "x", depth=1 / depth, width=width)
    assert all(new.num_layers <= old.num_layers for new, old in zip(smaller.stages, base.stages, strict=True))


def test_a_row_file_needs_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "mynet.toml").write_text(OWN)
    row = load_row(tmp_path / "mynet.toml")
    assert (row.name, row.family, row.max_size) == ("mynet", "user", 480)
    assert row.preprocessing == replace(find_variant("tiny").preprocessing, image_size=40)
