"""Decoding processes that the system ends, and compilers that are missing: real processes, real signals."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from train import session
from train.input.decoders import load
from train.input.loader import Prepared
from train.options import TrainOptions
from train.processes.workers import Workers
from zoo.data.pictures import Pictures
from zoo.errors import WorkerError
from zoo.model.variants import find_variant

# Eighteen steps an epoch: more than are decoded ahead, so the dead process is missed.
FLAGS = (
    *("train", "tiny", "--epochs", "4", "--image-size", "24", "--batch-size", "2", "--device", "cpu", "--workers", "2"),
    *("--save-every", "1000", "-o", "run"),
)
SCRIPT = """
import multiprocessing, os, sys
from train.watch.record import RunRecord
from zoo.cli import main

number = int(sys.argv.pop())

def on_step(self, epoch, step, steps, pictures, loss):
    if (epoch, step) == (1, 2):
        os.kill(multiprocessing.active_children()[0].pid, number)

RunRecord.on_step = on_step
main()
"""
ROOT = Path(__file__).parents[3]


def run_process(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    shared = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, env=shared | environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (signal.SIGKILL, "was ended by SIGKILL: most likely the system ran out of memory."),
        (signal.SIGBUS, "was ended by SIGBUS: most likely /dev/shm, through which batches are handed over, is full."),
    ],
)
def test_a_run_whose_decoding_process_is_ended_goes_on_bit_for_bit(
    number: signal.Signals, cause: str, in_folder: Path, picture_folder: Path, zoo: Callable
) -> None:
    flags = (*FLAGS, "--data", str(picture_folder))
    ended = run_process(SCRIPT, *flags, str(int(number)))
    assert ended.returncode == 1
    # None of the command's: another decoding process, just handing over a batch, may tell of its lost connection.
    assert "zoo/cli.py" not in ended.stderr
    assert cause in ended.stderr
    assert "--resume" in ended.stderr
    state = torch.load(in_folder / "run" / "state.pt", weights_only=True)
    assert len(state["history"]) == 1
    assert state["partial"]["steps"] >= 2
    assert not (in_folder / "run" / "last-good.safetensors").exists()
    assert zoo(*flags, "--resume", "--workers", 0).code == 0
    assert zoo(*flags, "-o", "whole", "--workers", 0).code == 0
    resumed, whole = (load_file(in_folder / name / "checkpoint.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


class Failing(Prepared):
    """Decoding that ends in an error of the system's."""

    def make(self, *_: Any) -> Any:
        raise MemoryError


def test_no_memory_in_a_decoding_process_is_no_traceback() -> None:
    pictures = Pictures("x", ("a", "b"), [np.zeros((8, 8, 3), np.uint8)] * 4, np.zeros(4, np.int64))
    for workers in (0, 1):
        with pytest.raises(WorkerError, match="no memory left"):
            list(load(Failing(pictures, find_variant("tiny").preprocessing), [[0, 1]], workers=workers, pin=False))


def test_processes_that_cannot_be_started_are_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(os, "fork", fork)
    pictures = Pictures("x", ("a", "b"), [np.zeros((8, 8, 3), np.uint8)] * 4, np.zeros(4, np.int64))
    with pytest.raises(WorkerError, match="cannot be started: Cannot allocate memory"):
        list(load(Prepared(pictures, find_variant("tiny").preprocessing), [[0, 1]], workers=1, pin=False))


def test_only_what_the_system_did_is_explained() -> None:
    assert Workers().explain(RuntimeError("Caught KeyError in DataLoader worker process 0.")) is None
    many = Workers().explain(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    assert many is not None
    assert "ulimit -n" in many.hint
    full = "unable to allocate shared memory(shm) for file </torch_1_2_0>: No space left on device (28)"
    shared = Workers().explain(RuntimeError(f"Caught RuntimeError in DataLoader worker process 0.\n… {full}"))
    assert shared is not None
    assert "/dev/shm is full" in shared.problem
    assert "--shm-size" in shared.hint


@pytest.mark.parametrize("environment", [{"CXX": "/there/is/no/g++"}, {"CXX": "false"}])
def test_a_missing_compiler_is_told_before_the_training(environment: dict[str, str], in_folder: Path) -> None:
    ended = run_process("from zoo.cli import main; main()", *FLAGS, "--compile", **environment)
    assert ended.returncode == 1
    assert "Error: --compile does not work here: No working C++ compiler found" in ended.stderr
    assert "Install a C++ compiler" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(in_folder.iterdir())


def test_a_process_lost_before_anything_is_saved_is_no_reason_to_resume(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        raise WorkerError("A decoding process was ended.", "Take fewer --workers.")

    monkeypatch.setattr(session, "fit", lambda *_, **__: lost())
    options = TrainOptions(
        model="tiny", data=str(picture_folder), epochs=4, image_size=16, workers=0, out=tmp_path / "run"
    )
    with pytest.raises(WorkerError) as error:
        session.train_model(options)
    assert error.value.hint == "Take fewer --workers. It had learnt nothing yet: give the same command again."
