"""`--find-lr`: the range test chooses the rate, leaves no trace in the run, and is made once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from train.learn.find_rate import find_rate
from train.learn.job import make_job
from train.learn.loop import _Loop
from train.learn.run import start_run
from train.options import TrainOptions
from train.processes.distributed import ALONE
from train.processes.stopping import RunStopped, StopRequest
from train.progressive.rate_range import RangeTest
from train.session import train_model
from zoo.errors import CheckpointError, DivergedError, ZooError
from zoo.weights.checkpoint import load_checkpoint, read_card

Options = Callable[..., TrainOptions]


def at(rate: float) -> Callable[..., RangeTest]:
    """A choice that is always the same."""

    def choose(losses: list[float], own: float, steps: int, *, seconds: float) -> RangeTest:
        known = tuple(losses)
        return RangeTest(rate=rate, own=own, reason="flat", rates=known, losses=known, seconds=seconds)

    return choose


def weights(folder: Path) -> dict[str, torch.Tensor]:
    model, _ = load_checkpoint(folder / "checkpoint.safetensors")
    return dict(model.state_dict())


def test_a_run_is_as_if_the_test_had_not_been_but_for_the_rate(
    small: Options, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = small(picture_folder, tmp_path / "plain", overrides=("ema_decay=0.9",))
    train_model(plain)
    own = read_card(tmp_path / "plain" / "checkpoint.safetensors").recipe["learning_rate"]
    monkeypatch.setattr("train.learn.find_rate.choose_rate", at(own))
    outcome = train_model(replace(plain, out=tmp_path / "found", find_lr=True, workers=2))
    assert len(outcome.history) == 4
    there, here = weights(tmp_path / "plain"), weights(tmp_path / "found")
    assert all(torch.equal(there[name], here[name]) for name in there)
    lines = [json.loads((tmp_path / run / "metrics.jsonl").read_text().splitlines()[-1]) for run in ("plain", "found")]
    assert lines[0]["train_loss"] == lines[1]["train_loss"] and lines[0]["val_loss"] == lines[1]["val_loss"]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop", "lamb"])
def test_everything_is_put_back(small: Options, picture_folder: Path, tmp_path: Path, optimizer: str) -> None:
    options = small(picture_folder, tmp_path, find_lr=True, overrides=(f"optimizer={optimizer}", "layer_decay=0.7"))
    job = make_job(options, ALONE, None, None, None, None)
    run = start_run(job)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    average = {name: value.clone() for name, value in run.average.model.state_dict().items()}
    random = torch.get_rng_state()
    found = find_rate(run, job, StopRequest())
    assert found is not None and len(found.losses) >= 8
    assert all(torch.equal(before[name], value) for name, value in run.model.state_dict().items())
    assert all(torch.equal(average[name], value) for name, value in run.average.model.state_dict().items())
    assert not run.optimizer.state and run.step == 0 and run.first_loss is None
    assert all(parameter.grad is None for parameter in run.model.parameters())
    assert torch.equal(random, torch.get_rng_state())


def test_the_choice_is_said_kept_and_used(zoo: Callable[..., Any], in_folder: Path) -> None:
    sizes = ("--epochs", 4, "--batch-size", 64, "--image-size", 24, "--workers", 0, "--device", "cpu")
    answer = zoo("train", "tiny", "--find-lr", *sizes, "-o", "run")
    assert answer.code == 0, answer.err
    kept = json.loads(Path("run/learning-rate.json").read_text())
    said = " ".join(answer.err.split())
    assert f"Learning rate {kept['rate']:.3g}: " in said and "the recipe's own" in said
    card = read_card(Path("run/checkpoint.safetensors"))
    assert card.recipe["learning_rate"] == kept["rate"] and card.recipe["find_lr"] is True
    assert card.provenance["range_test"]["own"] == kept["own"] == 2e-3
    assert "losses" not in card.provenance["range_test"]
    peak = max(json.loads(line)["learning_rate"] for line in Path("run/metrics.jsonl").read_text().splitlines())
    assert peak <= kept["rate"] * 1.001 and peak > 0.5 * kept["rate"]
    page = Path("run/report.html").read_text()
    assert "Range test: loss over the learning rate" in page and ">1e-4<" in page
    assert f"used, {kept['rate']:.3g}" in page


def test_a_plan_says_that_a_test_will_be(zoo: Callable[..., Any]) -> None:
    answer = zoo("train", "tiny", "--find-lr", "--plan")
    assert "a range test of at most 40 steps chooses the rate" in " ".join(answer.out.split())
    assert "range test" not in zoo("train", "tiny", "--plan").out
    assert json.loads(zoo("train", "tiny", "--find-lr", "--plan", "--json").out)["settings"]["find_lr"] is True


@pytest.mark.parametrize("given", [("--lr", "0.01"), ("--set", "learning_rate=0.01")])
def test_a_rate_that_is_given_is_not_found(zoo: Callable[..., Any], given: tuple[str, str]) -> None:
    for more in ((), ("--plan",)):
        answer = zoo("train", "tiny", "--find-lr", *given, *more)
        assert answer.code == 1 and "Leave one of them out" in answer.err


def test_a_resumed_run_keeps_its_rate_and_makes_no_second_test(
    small: Options,
    picture_folder: Path,
    tmp_path: Path,
    killed_after: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("train.learn.find_rate.choose_rate", at(0.005))
    options = small(picture_folder, tmp_path / "run", find_lr=True, save_every_s=0)
    train_model(replace(options, out=tmp_path / "whole"))
    with killed_after(2):
        train_model(options)
    plain = replace(options, find_lr=False, resume=True)
    with pytest.raises(CheckpointError, match=r"learning_rate \(0\.005, here 0\.002\)"):
        train_model(plain)

    def never(*arguments: object) -> None:
        raise AssertionError("a second range test")

    monkeypatch.setattr("train.learn.loop.find_rate", never)
    train_model(replace(options, resume=True))
    there, here = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(there[name], here[name]) for name in there)
    card = read_card(tmp_path / "run" / "checkpoint.safetensors")
    assert card.provenance["range_test"]["rate"] == card.recipe["learning_rate"] == 0.005
    assert "Range test" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_whose_rate_was_given_does_not_look_for_one_later(
    small: Options, picture_folder: Path, tmp_path: Path, killed_after: Callable[..., Any]
) -> None:
    options = small(picture_folder, tmp_path / "run", save_every_s=0)
    with killed_after(2):
        train_model(options)
    with pytest.raises(CheckpointError, match="find_lr"):
        train_model(replace(options, find_lr=True, resume=True))


def test_a_wish_to_stop_ends_the_test_and_the_resumed_run_makes_it(
    small: Options, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = small(picture_folder, tmp_path / "run", find_lr=True)
    rest = _Loop.rest

    def wish(self: _Loop, where: str) -> None:
        assert self.run.range_test is None
        rest(self, where)

    with monkeypatch.context() as patch, pytest.raises(RunStopped):
        patch.setattr("train.learn.loop.StopRequest", lambda: StopRequest(wish=15))
        patch.setattr("train.session.stop_requests", lambda: _asked())
        patch.setattr(_Loop, "rest", wish)
        train_model(options)
    train_model(replace(options, resume=True))
    assert read_card(tmp_path / "run" / "checkpoint.safetensors").provenance["range_test"]["own"] == 0.002


class _asked:
    """A request to stop that was made before the first step."""

    def __enter__(self) -> StopRequest:
        return StopRequest(wish=15)

    def __exit__(self, *error: object) -> None:
        return None


def test_it_is_made_after_the_head_start_with_layer_wise_rates_and_parts(
    tiny_run: Path, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TrainOptions(
        model=str(tiny_run), data=str(picture_folder), find_lr=True, epochs=2, batch_size=8, image_size=24, workers=0
    )
    told: list[str] = []
    monkeypatch.setattr("train.watch.live.LiveView.on_head_start", lambda self, found: told.append("head start"))
    monkeypatch.setattr("train.watch.live.LiveView.on_range_test", lambda self, found: told.append("range test"))
    outcome = train_model(replace(options, device="cpu", out=tmp_path, overrides=("stages.all.accumulate=2",)))
    assert told == ["head start", "range test"]
    assert outcome.head_start is not None


def test_several_labels_have_a_test_too(shapes: Path, tmp_path: Path, small: Options) -> None:
    train_model(small(shapes, tmp_path / "run", find_lr=True, precision="bf16", batch_size=32))
    assert read_card(tmp_path / "run" / "checkpoint.safetensors").provenance["range_test"]["own"] == 0.002


def test_its_time_is_in_a_budget(small: Options, picture_folder: Path, tmp_path: Path) -> None:
    options = small(picture_folder, tmp_path / "run", epochs=None, budget="12s", image_size=None, find_lr=True)
    outcome = train_model(options)
    assert outcome.history
    provenance = read_card(tmp_path / "run" / "checkpoint.safetensors").provenance
    assert provenance["training_seconds"] + provenance["range_test"]["seconds"] < 12


def test_losses_that_are_not_finite_are_told_by_the_run_itself(
    small: Options, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from train.learn.losses import Objective

    loss = Objective.loss
    monkeypatch.setattr(Objective, "loss", lambda self, *given: loss(self, *given) * float("nan"))
    with pytest.raises(DivergedError, match=r"The loss became nan in epoch 1, step 1"):
        train_model(small(picture_folder, tmp_path / "run", find_lr=True))
    assert json.loads((tmp_path / "run" / "learning-rate.json").read_text())["reason"] == "not_finite"


def test_a_rate_in_python_is_refused_too(small: Options, picture_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="--find-lr chooses"):
        train_model(small(picture_folder, tmp_path, find_lr=True, learning_rate=0.1))


SCRIPT = """
import os, sys
from pathlib import Path
import torch
import train.learn.loop
from train.options import TrainOptions
from train.session import train_model

def with_rate(job, found, use=train.learn.loop.with_rate):
    Path(sys.argv[1], f"rate-{os.environ['RANK']}").write_text(repr((found.rate, found.losses)))
    return use(job, found)

train.learn.loop.with_rate = with_rate
torch.set_num_threads(1)
train_model(TrainOptions(model="tiny", epochs=4, image_size=16, batch_size=48, find_lr=True,
                         out=Path(sys.argv[1], "run"), device="cpu", workers=0, overrides=("stages.all.accumulate=2",)))
"""


def test_several_processes_agree(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path)], check=True, env=environment, capture_output=True)
    assert (tmp_path / "rate-0").read_text() == (tmp_path / "rate-1").read_text()
    assert (tmp_path / "run" / "checkpoint.safetensors").is_file()


def test_grey_pictures_have_a_test_too(small: Options, picture_folder: Path, tmp_path: Path) -> None:
    train_model(small(picture_folder, tmp_path / "run", find_lr=True, channels=1))
    assert (tmp_path / "run" / "learning-rate.json").is_file()
