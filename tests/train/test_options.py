"""What the commands can be told stands in one row each, which Python can be told as well, and at no cost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path

import click
import pytest

from train.cli import bench_train
from train.cli import train as train_command
from train.learn.throughput import measure_training
from train.options import BenchTrainOptions, TrainOptions
from train.progressive.plan import plan_training
from train.session import train_model
from train.settings import Settings
from zoo.errors import RowError, ZooError
from zoo.rows import Row


@pytest.mark.parametrize(("command", "row"), [(train_command, TrainOptions), (bench_train, BenchTrainOptions)])
def test_a_command_is_told_what_its_row_holds(command: click.Command, row: type[Row]) -> None:
    """No option that Python has not, and no default of its own."""
    known = {field.name: field.default for field in fields(row)}
    told = {parameter.name: parameter for parameter in command.params}
    assert told.keys() - known.keys() <= {"plan", "as_json"}
    assert known.keys() == told.keys() - {"plan", "as_json"}
    for name, default in known.items():
        assert told[name].required if default is MISSING else told[name].default == default, name
    assert Settings.save_every_s == TrainOptions.save_every_s


def test_options_load_no_framework() -> None:
    program = (
        "import sys\nimport train.cli, train.options\n"
        "print([m for m in ('torch', 'numpy', 'rich', 'PIL', 'torchvision') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_python_is_told_and_plans_what_the_command_does(zoo: Callable, in_folder: Path) -> None:
    """Flags, then --set; the recipe's own fields where they are given."""
    flags = ("--epochs", 8, "--image-size", 36, "--lr", 0.5, "--temperature", 2, "--set", "stages.2.dropout=0.4")
    told = json.loads(zoo("train", "tiny", *flags, "--plan", "--json").out)
    options = TrainOptions(
        model="tiny", epochs=8, image_size=36, learning_rate=0.5, temperature=2, overrides=("stages.2.dropout=0.4",)
    )
    plan = plan_training(options)
    assert told["stages"] == [stage.to_dict() for stage in plan.recipe.stages]
    assert (told["settings"]["learning_rate"], told["settings"]["temperature"]) == (0.5, 2.0)
    assert (plan.recipe.epochs, plan.recipe.largest_size, plan.recipe.stages[1].dropout) == (8, 36, 0.4)
    assert sum(stage.macs for stage in plan.cost.stages) == plan.cost.macs


def test_python_measures_what_the_command_does() -> None:
    result = measure_training(BenchTrainOptions(model="tiny", image_size=16, batch_size=4, steps=3, device="cpu"))
    assert [row["image_size"] for row in result.data["rows"]][-1] == 16
    assert result.settings["steps"] == 3


def test_an_option_that_cannot_be_is_refused_in_python_too() -> None:
    for name, value in {"batch_size": 1, "precision": "fp8", "save_every_s": -1, "trackers": ("tensorbord",)}.items():
        with pytest.raises(RowError, match=name):
            TrainOptions(model="tiny", **{name: value})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--temperature", 2), "--temperature has no effect without a teacher."),
        (("--distill-alpha", 0.3), "--distill-alpha has no effect without a teacher."),
        (("--auto-batch", "--device", "cpu"), "--auto-batch has no effect on a CPU"),
        (("-o", "/proc/run"), "Cannot write to /proc/run: /proc: "),
    ],
)
def test_what_changes_nothing_or_cannot_end_is_refused_at_once(
    arguments: tuple[object, ...], said: str, zoo: Callable, in_folder: Path
) -> None:
    answer = zoo("train", "tiny", *arguments)
    assert answer.code == 1 and said in answer.err
    assert not list(in_folder.iterdir())


def test_epochs_and_a_budget_are_refused_from_python_too(picture_folder: Path) -> None:
    with pytest.raises(ZooError, match="epochs has no effect with a budget"):
        train_model(TrainOptions(model="tiny", data=str(picture_folder), budget="8s", epochs=2))
