"""What TensorBoard, MLflow and Weights & Biases are told; the latter two for real where they are installed.

Their stand-ins have the calls and arguments of mlflow 3 and wandb 0.2x that `train/watch/sinks.py` uses.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from train.cli import train as command
from train.learn.run import Epoch
from train.options import TRACKERS
from train.progressive.recipe import Recipe, find_recipe
from train.session import train_model
from train.watch import sinks, trackers
from train.watch.sinks import flatten
from train.watch.trackers import Tracker, epoch_values, find_trackers
from zoo.errors import MissingCapabilityError, UnknownNameError, ZooError
from zoo.model.variants import find_variant

TINY = find_variant("tiny")


class Stop(BaseException):
    """Stands for a signal."""


@pytest.fixture(autouse=True)
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "STEP_INTERVAL_S", 0.0)


@pytest.fixture
def train(small: Callable, picture_folder: Path, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Train tiny for 4 epochs of 4 steps with trackers; returns the metrics."""

    def run(*names: str, **options: Any) -> list[dict[str, Any]]:
        folder = tmp_path / "run"
        train_model(small(picture_folder, folder, trackers=names, **options))
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    return run


class Sink:
    """Keeps what it is told, or fails."""

    errors = (OSError,)

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.told: list[tuple[int, Mapping[str, float]]] = []
        self.endings: list[str] = []

    def log(self, values: Mapping[str, float], step: int) -> None:
        if self.fails:
            raise OSError("the server is [gone]")
        self.told.append((step, values))

    def close(self, ending: str) -> None:
        self.endings.append(ending)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_gets_every_epoch_at_its_step(train: Callable, tmp_path: Path) -> None:
    lines = train("tensorboard")
    read = scalars(tmp_path / "run" / "tensorboard")
    assert [step for step, _ in read["loss/val"]] == [5, 10, 15, 20]
    assert [value for _, value in read["loss/val"]] == pytest.approx([line["val_loss"] for line in lines])
    assert [value for _, value in read["top1/train"]] == pytest.approx([line["train_top1"] for line in lines])
    assert [value for _, value in read["schedule/image_size"]] == [line["image_size"] for line in lines]
    assert [step for step, _ in read["loss/step"]] == list(range(1, 21))
    assert not (tmp_path / "run" / "trackers.json").exists()  # event files need no id


def test_a_resumed_run_replaces_the_steps_after_its_state(
    train: Callable, tmp_path: Path, killed_after: Callable
) -> None:
    """Killed in the third epoch with the state of an earlier one: no step is there twice."""
    with killed_after(3):
        train("tensorboard", save_every_s=0.0)
    train("tensorboard", resume=True)
    read = scalars(tmp_path / "run" / "tensorboard")
    assert [step for step, _ in read["loss/val"]] == [5, 10, 15, 20]
    assert [step for step, _ in read["loss/step"]] == list(range(1, 21))


def test_the_names_on_the_command_line_are_the_rows() -> None:
    (option,) = (parameter for parameter in command.params if parameter.name == "trackers")
    assert list(option.type.choices) == [row.name for row in TRACKERS]
    assert all(callable(getattr(sinks, row.sink)) for row in TRACKERS)


def test_a_missing_package_is_named_before_anything_is_written(
    zoo: Callable, in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    for row in TRACKERS:
        with pytest.raises(MissingCapabilityError, match=f"needs {row.package}") as caught:
            find_trackers([row.name])
        assert caught.value.hint == f"pip install 'zoo[{row.extra}]'"
    answer = zoo("train", "tiny", "--tracker", "wandb", "--device", "cpu")
    assert answer.code == 1
    assert "pip install 'zoo[wandb]'" in answer.err
    assert list(in_folder.iterdir()) == []


def test_an_unknown_tracker_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean tensorboard"):
        find_trackers(["tensorbord"])
    assert [row.name for row in find_trackers(["tensorboard", "tensorboard"])] == ["tensorboard"]


def test_a_tracker_that_fails_is_named_once_and_the_run_goes_on() -> None:
    stream = io.StringIO()
    sink = Sink(fails=True)
    with Tracker("MLflow", sink, a_recipe(), 0, Console(file=stream, width=200)) as tracker:
        for step in range(3):
            tracker.on_step(0, step + 1, 3, 8, 1.5)
    assert stream.getvalue() == "MLflow failed, the run goes on without it: the server is [gone]\n"
    assert sink.endings == []


def test_an_error_that_is_not_the_trackers_is_not_swallowed() -> None:
    sink = Sink()
    with pytest.raises(ZeroDivisionError), Tracker("x", sink, a_recipe(), 0, Console(quiet=True)):
        _ = 1 / 0
    with pytest.raises(Stop), Tracker("x", sink, a_recipe(), 0, Console(quiet=True)):
        raise Stop
    with Tracker("x", sink, a_recipe(), 0, Console(quiet=True)):
        pass
    assert sink.endings == ["failed", "interrupted", "finished"]


def test_steps_count_on_from_a_resumed_run_and_losses_are_sent_where_they_are_known() -> None:
    sink = Sink()
    with Tracker("x", sink, a_recipe(), 100, Console(quiet=True)) as tracker:
        for loss in (None, 2.0, None, 1.0):
            tracker.on_step(0, 1, 4, 8, loss)
    assert sink.told == [(102, {"loss/step": 2.0}), (104, {"loss/step": 1.0})]


def test_losses_are_sent_no_more_often_than_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.0, 14.9, 15.0, 15.1])
    monkeypatch.setattr(trackers, "STEP_INTERVAL_S", 5.0)
    monkeypatch.setattr(trackers, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    sink = Sink()
    with Tracker("x", sink, a_recipe(), 0, Console(quiet=True)) as tracker:
        for _ in range(5):
            tracker.on_step(0, 1, 4, 8, 1.0)
    assert [step for step, _ in sink.told] == [1, 4]


def a_recipe() -> Recipe:
    return find_recipe("digits", TINY)


def an_epoch(recipe: Recipe) -> Epoch:
    return Epoch(
        epoch=4,
        stage=2,
        image_size=recipe.stages[1].image_size,
        learning_rate=0.1,
        train_loss=1.0,
        train_top1=0.5,
        val_loss=2.0,
        val_top1=0.25,
        val_size=30,
        pictures_per_second=100.0,
        seconds=10.0,
        broken=1,
    )


def test_an_epoch_brings_its_stages_settings() -> None:
    recipe = a_recipe()
    values = epoch_values(an_epoch(recipe), recipe)
    assert values["schedule/dropout"] == recipe.stages[1].dropout
    assert values["schedule/image_size"] == recipe.stages[1].image_size
    assert values["top1/val"] == 0.25
    assert all(isinstance(value, float) for value in values.values())


def test_a_loss_that_is_no_number_is_not_sent() -> None:
    sink = Sink()
    line = replace(an_epoch(a_recipe()), val_loss=None)
    with Tracker("x", sink, a_recipe(), 0, Console(quiet=True)) as tracker:
        tracker.on_epoch(SimpleNamespace(step=7), line)
    ((step, values),) = sink.told
    assert (step, "loss/val" in values, values["loss/train"]) == (7, False, 1.0)


def test_nested_settings_become_dotted_names() -> None:
    config = {"seed": 1, "recipe": {"betas": [0.9, 0.99], "stages": [{"dropout": 0.1}, {"dropout": 0.2}]}}
    assert flatten(config) == {
        "seed": 1,
        "recipe.betas": [0.9, 0.99],
        "recipe.stages.1.dropout": 0.1,
        "recipe.stages.2.dropout": 0.2,
    }


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """mlflow and wandb as modules that keep what they are told."""
    kept = SimpleNamespace(params={}, metrics=[], runs=[], rows=[], inits=[], ends=[])
    mlflow, exceptions, wandb = ModuleType("mlflow"), ModuleType("mlflow.exceptions"), ModuleType("wandb")

    class MlflowException(Exception):
        pass

    def start_run(*, run_id: str | None, run_name: str, nested: bool) -> SimpleNamespace:
        kept.runs.append((run_id, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "new-id"))

    def end_run(status: str) -> None:
        kept.ends.append(status)
        print("View run at http://somewhere")  # noqa: T201 as mlflow does

    class WandbRun:
        id = "wandb-id"

        def log(self, data: dict[str, float], step: int) -> None:
            kept.rows.append((step, data))

        def finish(self, exit_code: int) -> None:
            kept.ends.append(exit_code)

    def init(**options: Any) -> WandbRun:
        kept.inits.append(options)
        return WandbRun()

    vars(exceptions).update(MlflowException=MlflowException)
    vars(mlflow).update(
        exceptions=exceptions,
        start_run=start_run,
        end_run=end_run,
        log_params=kept.params.update,
        log_metrics=lambda metrics, step: kept.metrics.append((step, metrics)),
    )
    vars(wandb).update(
        init=init,
        Settings=lambda **options: options,
        errors=SimpleNamespace(Error=type("Error", (Exception,), {})),
    )
    for module in (mlflow, exceptions, wandb):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(trackers, "find_spec", lambda name: object())
    yield kept


def test_mlflow_and_wandb_get_settings_figures_and_the_end(
    train: Callable, tmp_path: Path, stand_ins: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = train("mlflow", "wandb")
    assert stand_ins.runs == [(None, f"{TINY.name} on {stand_ins.params['data']}")]
    assert stand_ins.params["model"] == "tiny"
    assert stand_ins.params["recipe.stages.4.image_size"] == 24
    (options,) = stand_ins.inits
    assert options["project"] == "zoo"
    assert options["id"] is None
    assert options["config"]["recipe"]["stages"][3]["image_size"] == 24
    for told in (stand_ins.metrics, stand_ins.rows):
        epochs = [(step, values["loss/val"]) for step, values in told if "loss/val" in values]
        assert epochs == [(5 * number, line["val_loss"]) for number, line in enumerate(lines, start=1)]
    assert sorted(stand_ins.ends, key=str) == [0, "FINISHED"]
    assert json.loads((tmp_path / "run" / "trackers.json").read_text()) == {"mlflow": "new-id", "wandb": "wandb-id"}
    assert capsys.readouterr().out == ""  # stdout is for results


def test_a_resumed_run_goes_on_under_its_ids(
    train: Callable, killed_after: Callable, stand_ins: SimpleNamespace
) -> None:
    with killed_after(3):
        train("mlflow", "wandb", save_every_s=0.0)
    train("mlflow", "wandb", resume=True)
    assert [run_id for run_id, _ in stand_ins.runs] == [None, "new-id"]
    assert [(options["id"], options["resume"]) for options in stand_ins.inits] == [(None, None), ("wandb-id", "allow")]
    assert [end for end in stand_ins.ends if isinstance(end, str)] == ["KILLED", "FINISHED"]
    assert [end for end in stand_ins.ends if isinstance(end, int)] == [1, 0]


def test_a_tracker_that_refuses_the_run_is_an_error_with_a_hint(
    train: Callable, stand_ins: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**options: Any) -> None:
        raise sys.modules["mlflow.exceptions"].MlflowException("no such experiment")

    monkeypatch.setattr(sys.modules["mlflow"], "start_run", refuse)
    with pytest.raises(ZooError, match="MLflow refused the run: no such experiment") as caught:
        train("mlflow")
    assert "MLFLOW_TRACKING_URI" in caught.value.hint


@pytest.mark.skipif(not find_spec("mlflow"), reason="mlflow is not installed; its stand-in is tested above")
@pytest.mark.filterwarnings("default")  # its dependencies', not ours
def test_the_real_mlflow_keeps_a_run(train: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    lines = train("mlflow")
    (identity,) = json.loads((tmp_path / "run" / "trackers.json").read_text()).values()
    client = mlflow.MlflowClient(address)
    run = client.get_run(identity)
    assert run.info.status == "FINISHED"
    assert run.data.params["recipe.stages.4.image_size"] == "24"
    history = client.get_metric_history(identity, "loss/val")
    assert [(row.step, row.value) for row in history] == [(line["epoch"] * 5, line["val_loss"]) for line in lines]


@pytest.mark.skipif(not find_spec("wandb"), reason="wandb is not installed; its stand-in is tested above")
@pytest.mark.filterwarnings("default")
def test_the_real_wandb_keeps_a_run_offline(
    train: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    train("wandb")
    (kept,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"schedule/image_size" in kept.read_bytes()
    assert capfd.readouterr().out == ""
