"""What a training step's memory and time are with activations kept, and with --checkpoint-activations.

    python benchmarks/checkpointing.py                    # S at 128 px, 16 pictures, on the processor
    python benchmarks/checkpointing.py --model b0 --image-size 224 --batch-size 8

Each of the two is a process of its own: the memory is the most that process had in its steps, beyond what it had before
its first one (network, average and pictures; the optimizer's state, 8 bytes a parameter, is counted). Prints a table;
`benchmarks/checkpointing.txt` is one.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import torch

from train.learn.run import enter_stage, start_run
from train.learn.step import train_step
from train.learn.throughput import noise, noise_job
from train.progressive.recipe import find_recipe
from train.settings import Settings
from zoo.machine import processor_name
from zoo.model.variants import find_variant

NUM_CLASSES = 100
# ru_maxrss is in KiB on Linux and in bytes on macOS.
UNIT = 1 if sys.platform == "darwin" else 1024


def main() -> None:
    """Measure both in processes of their own, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="s")
    parser.add_argument("--image-size", type=int, default=128, help="px")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3, help="timed ones, after the first")
    parser.add_argument("--only", choices=("kept", "computed-again"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options, checkpoint=options.only == "computed-again")))
        return
    print(
        f"{options.model}, {options.batch_size} pictures of {options.image_size} px, fp32, {torch.get_num_threads()} "
        f"thread(s) of {processor_name()}, torch {torch.__version__}, n {options.steps}"
    )
    for name in ("kept", "computed-again"):
        command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        spread = f"{min(found['seconds']):.2f} … {max(found['seconds']):.2f}"
        print(f"activations {name:<14}  {found['bytes'] / 1e6:>7,.0f} MB  {spread} s of processor time a step")


def measure(options: argparse.Namespace, *, checkpoint: bool) -> dict[str, object]:
    """Bytes at the peak of a few steps beyond those before, and each later step's processor time in seconds."""
    variant = find_variant(options.model)
    recipe = find_recipe("folder", variant)
    stage = replace(recipe.stages[-1], image_size=options.image_size, batch_size=options.batch_size)
    settings = Settings(
        device=torch.device("cpu"), precision="fp32", seed=0, workers=0, checkpoint_activations=checkpoint
    )
    job = noise_job(variant, recipe, settings, NUM_CLASSES)
    run = start_run(job)
    enter_stage(run, stage, settings)
    part = noise(job, stage)
    before, seconds = peak_bytes(), []
    for _ in range(1 + options.steps):
        began = time.process_time()
        train_step(run, job, stage, [part], np.random.default_rng(0))
        seconds.append(time.process_time() - began)
    return {"bytes": peak_bytes() - before, "seconds": seconds[1:]}


def peak_bytes() -> int:
    """The most memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT


if __name__ == "__main__":
    main()
