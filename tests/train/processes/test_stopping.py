"""Runs that are killed, stopped and diverge: real processes, real signals, real weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from train.input.loader import Augmented, Read
from train.learn.ema import WeightAverage
from train.learn.losses import Objective
from train.processes.stopping import Interrupted, RunStopped, signals_held, stop_requests
from train.session import train_model
from zoo.errors import DivergedError, ZooError
from zoo.model.network import Network
from zoo.weights.checkpoint import load_checkpoint

# Dropout, stochastic depth, mixup and erasing all draw at random, so a wrong generator state shows.
FLAGS = (
    *("train", "tiny", "--epochs", "8", "--image-size", "24", "--batch-size", "6", "--device", "cpu"),
    *("--workers", "0", "--set", "stages.all.random_erasing_prob=0.5", "--set", "stages.all.accumulate=2"),
    *("--set", "optimizer=rmsprop", "--save-every", "0"),
)
MAIN = "from zoo.cli import main; main()"
# A process that sends itself a signal in the middle of epoch 4, the second of stage 2, after a step's watchers.
SCRIPT = """
import os, sys
from train.watch.record import RunRecord
from zoo.cli import main

number = int(sys.argv.pop())

def on_step(self, epoch, step, steps, pictures, loss):
    if (epoch, step) == (3, 4):
        os.kill(os.getpid(), number)

RunRecord.on_step = on_step
main()
"""


@pytest.fixture(scope="module")
def whole_run(picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    done = _process(MAIN, [*FLAGS, "--data", str(picture_folder)], folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "tiny"


def _process(script: str, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_finished_run_is_left_as_it_is_by_a_requeued_job(
    picture_folder: Path, whole_run: Path, monkeypatch: pytest.MonkeyPatch, zoo: Callable
) -> None:
    """A job that failed after the end, or was drained then, starts again with the same command."""
    before = {path: path.stat().st_mtime_ns for path in whole_run.iterdir()}
    command = (*FLAGS, "--data", str(picture_folder), "-o", whole_run)
    answer = zoo(*command, "--auto-resume")
    assert (answer.code, answer.out) == (0, "")
    assert f"{whole_run} is finished." in "".join(answer.err.splitlines())
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert zoo(*command).code == 0
    assert {path: path.stat().st_mtime_ns for path in whole_run.iterdir()} == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_ended_in_mid_stage_goes_on_bit_for_bit(
    number: signal.Signals, in_folder: Path, picture_folder: Path, whole_run: Path
) -> None:
    # --auto-resume begins where there is nothing, and goes on as --resume does where there is.
    ended = _process(SCRIPT, [*FLAGS, "--auto-resume", "--data", str(picture_folder), str(int(number))], in_folder)
    code = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 0, signal.SIGINT: 130}[number]
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    if number != signal.SIGKILL:
        assert "Stopped in epoch 4 of 8, after step 4 of 6" in ended.stderr
    folder = in_folder / "runs" / "tiny"
    state = torch.load(folder / "state.pt", weights_only=True)
    # SIGKILL came before the state of its step was written.
    assert (len(state["history"]), state["partial"]["steps"]) == (3, 3 if number == signal.SIGKILL else 4)
    assert not (folder / "checkpoint.safetensors").exists()

    flag = "--auto-resume" if number == signal.SIGTERM else "--resume"
    resumed_run = _process(MAIN, [*FLAGS, "--data", str(picture_folder), flag], in_folder)
    assert resumed_run.returncode == 0, resumed_run.stderr
    assert "after epoch 3 and" in resumed_run.stderr
    whole, resumed = (load_file(f / "checkpoint.safetensors") for f in (whole_run, folder))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    for name in ("train_loss", "train_top1", "val_loss", "val_top1", "learning_rate"):
        assert _column(whole_run, name) == _column(folder, name)
    assert not (folder / "state.pt").exists()


FINISH = """
import os
from train.watch.record import RunRecord
from zoo.cli import main

def finish(self, *arguments, whole=RunRecord.finish):
    os.kill(os.getpid(), 15)
    whole(self, *arguments)

RunRecord.finish = finish
main()
"""


def test_a_signal_after_the_last_epoch_does_not_lose_the_run(in_folder: Path, picture_folder: Path) -> None:
    ended = _process(FINISH, [*FLAGS, "--save-every", "1000", "--data", str(picture_folder)], in_folder)
    assert ended.returncode == 128 + signal.SIGTERM
    assert (in_folder / "runs" / "tiny" / "checkpoint.safetensors").is_file()


# As torchrun, Slurm and a terminal do it: the signal goes to the decoding processes as well, and more than once; the
# last time when the run is stopping already.
AGAIN = "[os.killpg(0, number), Timer(0.02, lambda: os.killpg(0, number)).start(), os.killpg(0, number)]"
GROUP = "from threading import Timer\n" + SCRIPT.replace("os.kill(os.getpid(), number)", AGAIN)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_decoding_processes_too_is_the_same_wish(
    number: signal.Signals, in_folder: Path, picture_folder: Path
) -> None:
    arguments = [*FLAGS, "--workers", "2", "--data", str(picture_folder), str(int(number))]
    ended = _process("import os; os.setpgrp()\n" + GROUP, arguments, in_folder)
    assert ended.returncode == (0 if number == signal.SIGTERM else 130), ended.stderr
    assert "Stopped in epoch 4 of 8, after step 4 of 6" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert (in_folder / "runs" / "tiny" / "state.pt").is_file()


# Its error, and by it the loader, is still there when the interpreter ends.
FAILED = """
import numpy as np
from train.input.decoders import load
from train.input.loader import Prepared
from zoo.data.pictures import Pictures
from zoo.errors import DataError
from zoo.model.variants import find_variant

class Failing(Prepared):
    def __getitems__(self, indices):
        return DataError("The server is gone.") if 2 in indices else super().__getitems__(indices)

pictures = Pictures("x", ("a", "b"), [np.zeros((8, 8, 3), np.uint8)] * 6, np.zeros(6, np.int64))
dataset = Failing(pictures, find_variant("tiny").preprocessing)
try:
    for batch in load(dataset, [[0, 1], [2, 3], [4, 5]], workers=2, pin=False):
        print(len(batch.labels))
except DataError as error:
    kept = error
    kept.itself = kept
    print(error)
"""


def test_a_process_ends_though_a_loader_that_failed_is_still_referred_to(tmp_path: Path) -> None:
    """Its decoding processes leave SIGTERM to the run, and nobody else asked them to end: it waited for ever."""
    ended = _process(FAILED, [], tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split("\n") == ["2", "The server is gone.", ""]


def _column(folder: Path, name: str) -> list[float]:
    return [json.loads(line)[name] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The moments that the handler of signals reads; the last one is now."""
    moments = [0.0]
    monkeypatch.setattr("train.processes.stopping.time", SimpleNamespace(monotonic=lambda: moments[-1], sleep=abs))
    return moments


def test_the_first_signal_is_a_wish_and_the_second_a_signal(clock: list[float]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_requests() as request:
        assert request.wish is None
        os.kill(os.getpid(), signal.SIGINT)
        assert request.wish == signal.SIGINT
        clock.append(1.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_the_same_press_that_comes_by_two_ways_is_one_wish(clock: list[float]) -> None:
    """A terminal sends Ctrl-C to the whole group, and the launcher in it sends it on."""
    with stop_requests() as request:
        os.kill(os.getpid(), signal.SIGINT)
        for moment in (0.02, 0.2, 0.4):  # as a key that is held down
            clock.append(moment)
            os.kill(os.getpid(), signal.SIGINT)
        assert request.wish == signal.SIGINT


def test_sigterm_may_come_again_and_does_not_change_the_wish() -> None:
    for first in (signal.SIGTERM, signal.SIGINT):
        with stop_requests() as request:
            for number in (first, signal.SIGTERM, signal.SIGTERM):
                os.kill(os.getpid(), number)
            assert request.wish == first


def test_a_signal_ends_a_wait_but_not_what_follows_it() -> None:
    with stop_requests() as request:
        assert request.wait_for(lambda: 7) == 7
        with pytest.raises(Interrupted) as ended:
            request.wait_for(lambda: [os.kill(os.getpid(), signal.SIGTERM) for _ in range(2)])
        assert ended.value.wish == request.wish == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)  # while the state is written
        waited: list[int] = []
        with pytest.raises(Interrupted):
            request.wait_for(lambda: waited.append(1))
        assert not waited


def test_a_signal_in_the_last_step_of_an_epoch_is_not_kept_waiting_by_the_validation(
    in_folder: Path, picture_folder: Path, whole_run: Path
) -> None:
    script = SCRIPT.replace("(3, 4)", "(3, 6)")
    ended = _process(script, [*FLAGS, "--data", str(picture_folder), str(int(signal.SIGTERM))], in_folder)
    assert ended.returncode == 0, ended.stderr
    assert "Stopped in epoch 4 of 8, after step 6 of 6" in ended.stderr
    resumed = _process(MAIN, [*FLAGS, "--data", str(picture_folder), "--resume"], in_folder)
    assert resumed.returncode == 0, resumed.stderr
    assert _column(whole_run, "val_loss") == _column(in_folder / "runs" / "tiny", "val_loss")


def test_only_the_process_that_got_sigterm_says_that_all_is_well() -> None:
    assert RunStopped(signal.SIGTERM, "here").exit_code == 0
    assert RunStopped(signal.SIGTERM, "here", own=False).exit_code == 1


@pytest.mark.parametrize("taken_by", ["this thread", "another"])
def test_a_held_signal_comes_at_the_end(taken_by: str) -> None:
    """A mask holds what this thread would take; a signal for the process may be taken by any of PyTorch's threads."""
    go = threading.Event()
    # It runs before signals are held: a thread begun later would have this one's mask.
    other = threading.Thread(target=lambda: (go.wait(), signal.raise_signal(signal.SIGTERM)))
    with stop_requests() as request:
        if taken_by == "another":
            other.start()
        with signals_held():
            if taken_by == "another":
                go.set()
                other.join()
            else:
                signal.raise_signal(signal.SIGTERM)
            assert request.wish is None
        assert request.wish == signal.SIGTERM


def test_a_run_may_go_on_in_other_parts(
    small: Callable, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many pictures are in memory at once is the machine's business, not the run's identity."""
    with monkeypatch.context() as patch:
        patch.setattr("train.watch.record.RunRecord.finish", lambda *_: None)  # stop short of the end
        train_model(small(picture_folder, tmp_path, batch_size=12, save_every_s=0))
    halves = ("stages.all.accumulate=2",)
    train_model(small(picture_folder, tmp_path, batch_size=12, overrides=halves, resume=True))
    assert (tmp_path / "checkpoint.safetensors").is_file()


def test_a_diverged_run_names_its_batch_and_leaves_the_last_good_weights(
    small: Callable, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Objective.loss
    calls: list[str] = []
    make = Augmented.make

    def remember(self: Augmented, indices: Sequence[int], reads: Sequence[Read]):  # type: ignore[no-untyped-def]
        calls.extend(self.pictures.describe(index) for index in indices)
        return make(self, indices, reads)

    def poisoned(self: Objective, *arguments):  # type: ignore[no-untyped-def]
        value = loss(self, *arguments)
        return value * float("nan") if len(calls) == 12 * 8 else value

    monkeypatch.setattr(Augmented, "make", remember)
    monkeypatch.setattr(Objective, "loss", poisoned)
    monkeypatch.setattr("train.watch.report.fed_sections", lambda *_: [])  # the page would load pictures too
    folder = tmp_path / "run"
    with pytest.raises(ZooError) as error:
        train_model(small(picture_folder, folder, batch_size=12, save_every_s=0))
    assert "The loss became nan in epoch 3, step 2" in error.value.problem
    for name in calls[-12:-4]:
        assert name in error.value.problem
    assert "and 4 more" in error.value.problem
    assert "last-good.safetensors" in error.value.hint
    state = torch.load(folder / "state.pt", weights_only=True)
    assert (len(state["history"]), state["step"]) == (2, 7)
    model, card = load_checkpoint(folder / "last-good.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())
    assert "loss became nan" in card.provenance["stopped_by"]
    monkeypatch.setattr(Objective, "loss", loss)
    calm = small(picture_folder, tmp_path / "b", batch_size=12, learning_rate=1e-5)
    again = train_model(replace(calm, model=str(folder / "last-good.safetensors")))
    assert again.checkpoint.is_file()


def test_weights_that_are_not_finite_are_never_saved(small: Callable, picture_folder: Path, tmp_path: Path) -> None:
    """The rate is so high that one step ruins the weights, whose own loss was still finite."""
    with pytest.raises(ZooError, match=r"Weights became (nan|inf)|The loss became (nan|inf)"):
        train_model(small(picture_folder, tmp_path, batch_size=12, learning_rate=1e38, save_every_s=0))
    path = tmp_path / "state.pt"
    if path.exists():
        state = torch.load(path, weights_only=True)
        assert all(np.isfinite(tensor.numpy()).all() for tensor in state["model"].values())


def test_a_validation_whose_answers_are_not_finite_ends_the_run(
    small: Callable, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses stay finite where only the statistics of a batch norm overflow; top-1 was that of the first class."""
    update = WeightAverage.update

    def overflow(self: WeightAverage, model: Network, step: int) -> None:
        update(self, model, step)
        if step == 7:
            model.get_buffer("stem.norm.running_var").fill_(float("inf"))
            self.model.get_buffer("stem.norm.running_var").fill_(float("nan"))

    monkeypatch.setattr(WeightAverage, "update", overflow)
    with pytest.raises(DivergedError, match="answers 18 of 18 validation pictures with logits that are not finite"):
        train_model(small(picture_folder, tmp_path, batch_size=12, save_every_s=1000))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert not (tmp_path / "checkpoint.safetensors").exists()

    with pytest.raises(DivergedError, match="Weights became nan") as error:
        train_model(small(picture_folder, tmp_path, batch_size=12, save_every_s=0))
    assert "last-good.safetensors" in error.value.hint
    for name in ("model", "average"):
        state = torch.load(tmp_path / "state.pt", weights_only=True)[name]
        assert all(tensor.isfinite().all() for tensor in state.values())
