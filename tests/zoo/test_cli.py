from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from zoo.cli import BENCHMARKS, COMMANDS, cli
from zoo.weights.table import find_weights

Zoo = Callable[..., "object"]
Loaded = Callable[..., list[str]]


def test_help_and_import_load_no_framework() -> None:
    program = (
        "import sys\nfrom click.testing import CliRunner\nimport zoo\nfrom zoo.cli import cli\n"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0\n"
        "print([m for m in ('torch', 'onnxruntime', 'starlette', 'numpy', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", [*([name] for name in COMMANDS), *(["bench", name] for name in BENCHMARKS)])
def test_every_command_of_the_table_exists_and_explains_itself(path: list[str], zoo: Zoo) -> None:
    answer = zoo(*path, "--help")
    assert answer.code == 0
    assert answer.out.startswith(f"Usage: zoo {' '.join(path)}")


def test_no_commands_help_loads_torch() -> None:
    commands = [*([name] for name in COMMANDS), *(["bench", name] for name in BENCHMARKS)]
    program = (
        "import sys\nfrom click.testing import CliRunner\nfrom zoo.cli import cli\n"
        f"for path in {commands!r}:\n    assert CliRunner().invoke(cli, [*path, '--help']).exit_code == 0, path\n"
        "print([m for m in ('torch', 'onnxruntime', 'starlette', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [["list"], ["show", "s"], ["show", "b0", "--json"], ["list", "--json"]])
def test_looking_at_models_loads_no_framework(arguments: list[str], frameworks_loaded_by: Loaded) -> None:
    assert frameworks_loaded_by(*arguments) == []


def test_a_plan_is_arithmetic_on_rows(picture_folder: Path, tiny_run: Path, frameworks_loaded_by: Loaded) -> None:
    """Once the pace is known: the first time it is measured by real steps."""
    for model, data in (("tiny", "digits"), (tiny_run / "checkpoint.safetensors", picture_folder)):
        asked = ("train", model, "--data", data, "--image-size", 32, "--plan")
        assert "torch" in frameworks_loaded_by(*asked)
        assert frameworks_loaded_by(*asked) == ["numpy"]


def test_every_option_has_a_help_text() -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.name}"


def test_list_json_has_the_documented_fields(zoo: Zoo) -> None:
    rows = json.loads(zoo("list", "--json").out)
    s = next(row for row in rows if row["id"] == "s")
    assert s["num_params"] == 21_458_488
    assert s["macs"] == pytest.approx(8.37e9, rel=0.005)
    assert (s["train_size"], s["eval_size"]) == (300, 384)
    assert s["weights"] == ["s.timm-in21k-ft-in1k", "s.torchvision-imagenet1k", "s.timm-in1k"]
    lite = next(row for row in rows if row["id"] == "lite0")
    assert lite["weights"] == ["lite0.imagenet1k", "lite0.timm-in1k"]
    assert set(s) == {"id", "family", "num_params", "macs", "train_size", "eval_size", "weights", "accuracy"}


def test_published_accuracy_is_that_of_the_weights_that_pull_fetches(zoo: Zoo) -> None:
    rows = json.loads(zoo("list", "--json").out)
    for row in rows:
        if not row["weights"]:
            assert row["accuracy"] is None  # never a figure without a source
            continue
        best = find_weights(row["id"])
        assert row["accuracy"] == {
            "weights": best.id,
            "image_size": best.preprocessing.image_size,
            "top1": best.accuracy.top1,
            "top5": best.accuracy.top5,
            "source": best.accuracy.source,
        }
    lines = {line.split()[0]: line for line in zoo("list").out.splitlines()}
    assert "84.3% at 384" in lines["s"]
    assert "81.5% at 380" in lines["lite4"]  # timm's size, not the network's own 300 px
    assert "%" not in lines["s-relu6"] + lines["tiny"]


def test_list_and_show_are_tables(zoo: Zoo) -> None:
    assert "lite2" in zoo("list").out
    shown = zoo("show", "s").out
    assert shown.count("Fused-MBConv") == 3
    assert "21,458,488 parameters, 8.37 GMACs" in shown


def test_show_json_sums_to_the_total(zoo: Zoo) -> None:
    shown = json.loads(zoo("show", "s", "--json").out)
    assert sum(stage["num_params"] for stage in shown["stages"]) == shown["num_params"]


def test_unknown_model_names_the_nearest(zoo: Zoo) -> None:
    answer = zoo("show", "efficientnet_s")
    assert answer.code == 1
    assert answer.out == ""
    assert "Unknown model 'efficientnet_s'. Did you mean" in answer.err
    assert "zoo list" in answer.err
    assert "Traceback" not in answer.err


def test_unknown_command_names_the_nearest(zoo: Zoo) -> None:
    answer = zoo("trian")
    assert answer.code == 2
    assert "Did you mean train?" in answer.err


def test_doctor_tries_everything(zoo: Zoo) -> None:
    found = json.loads(zoo("doctor", "--json").out)
    assert {"python", "torch", "gpu", "driver", "onnxruntime", "tensorrt", "tensorrt-rtx"} <= set(found)
    assert all({"available", "version", "hint"} <= set(entry) for entry in found.values())
    assert found["torch"]["available"]
    assert found["onnxruntime"]["available"]
    assert "working: CPU" in found["onnxruntime"]["detail"]
    assert "zoo[tensorrt]" in zoo("doctor").out or found["tensorrt"]["available"]


def test_sample_writes_digits(zoo: Zoo, in_folder: Path) -> None:
    answer = zoo("sample", "--count", "3", "-o", "some")
    assert answer.out == "some\n"
    assert len(list((in_folder / "some").glob("*/digit-*.png"))) == 3
    assert "too few to train on" in answer.err


def test_what_sample_writes_can_be_trained_on(zoo: Zoo, in_folder: Path) -> None:
    """As the README says it: a folder for each class, with pictures for both splits."""
    assert "trains on them" in zoo("sample").err
    checked = json.loads(zoo("data", "check", "pictures/", "--json").out)
    assert [row["class"] for row in checked["classes"]] == list("0123456789")
    assert min(row["train"] for row in checked["classes"]) >= 10
    assert min(row["val"] for row in checked["classes"]) >= 2
    assert zoo("train", "s", "--data", "pictures/", "--plan").code == 0
