"""The default command beside what experts write, in the same time on the same cores: from weights, or from nothing.

    python benchmarks/finetuning.py lite0.safetensors --seconds 90           from weights: three sets, three seeds
    python benchmarks/finetuning.py tiny --seconds 90 --peers plain          from nothing
    python benchmarks/finetuning.py lite0.safetensors --sets marks unequal textures     what photographs do not test

Ours is `zoo train MODEL --data SET --budget SECONDS`, with no other option, and again in half the time; --controls adds
the same without progressive learning: rising sizes alone, and the last size throughout. The peers are
in `finetuning_peers/`, 40 lines each at most; the sets in `sets.py` and `made_sets.py`, others for each seed. Each
answers to the test pictures of its split, which nobody trains or chooses on. Runs take turns, seed by seed, so that a
machine that slows down slows all of them; finished ones are kept in --work, and the same command goes on where it
stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from made_sets import MADE, make_drawn_set
from sets import PACKAGES, make_set

from serve.bench.kinds.finetuning import OURS, OURS_HALF, FinetuningData, TrainedRow
from serve.bench.report.report import keep_result
from zoo.files import write_json
from zoo.machine import processor_name
from zoo.results import Result, Subject, measured_on
from zoo.weights.resolve import find_model_variant, has_weights

HERE = Path(__file__).parent
PEERS = HERE / "finetuning_peers"
# What the default would be without progressive learning: the name of each control, and its recipe.
CONTROLS = {"zoo train, size alone": "progressive_resize", "zoo train, fixed size": "fixed"}
# What the plain loop takes of networks that are trained from nothing: size, px, timm's name or ours, and rate. It is
# the rate that was best for it in trials; with the 3e-4 of fine-tuning it learns far less.
FROM_NOTHING = {"tiny": ("32", "tiny", "2e-3"), "b0": ("96", "tf_efficientnetv2_b0", "2e-3")}


def main() -> None:
    """Run every contender on every set with every seed, and write one result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a checkpoint of Lite0's ImageNet weights, or the id of a network")
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--sets", nargs="+", choices=[*PACKAGES, *MADE], default=list(PACKAGES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--peers", nargs="+", default=["plain", "frozen", "timm_pieces"])
    parser.add_argument("--controls", action="store_true", help="also without progressive learning: --recipe fixed, …")
    parser.add_argument("--work", type=Path, default=Path("build/finetuning"), help="where sets and runs are kept")
    parser.add_argument("-o", "--out", type=Path, default=HERE)
    options = parser.parse_args()
    weights = None
    options.work.mkdir(parents=True, exist_ok=True)
    if has_weights(options.model):
        weights = options.work / f"{Path(options.model).stem}-timm.safetensors"
        call("zoo", "convert", options.model, "--to", "timm", "-o", str(weights))
    elif options.model not in FROM_NOTHING or options.peers != ["plain"]:
        parser.error(f"from nothing there are {', '.join(FROM_NOTHING)}, with --peers plain.")
    rows = []
    for seed in options.seeds:
        for name in options.sets:
            make = make_drawn_set if name in MADE else make_set
            data = make(name, options.work / "sets" / f"{name}-{seed}", seed)
            contenders = [OURS, OURS_HALF, *options.peers, *(CONTROLS if options.controls else ())]
            rows += [run(contender, data, weights, name, seed, options) for contender in contenders]
    keep_result(result_of(rows, options), options.out)


def call(module: str, *arguments: str) -> None:
    """Run a module of ours, or a script, to its end."""
    command = [sys.executable, *(["-m", module] if module == "zoo" else [module]), *arguments]
    clock = {"BEGAN": str(time.time())}  # the peers' time begins with their process, as ours does
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | clock)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


def run(
    contender: str, data: Path, weights: Path | None, name: str, seed: int, options: argparse.Namespace
) -> TrainedRow:
    """One contender on one split, or what is kept of it; `weights` in timm's keys, None: from nothing."""
    who = f"{contender.replace(', ', '-').replace(' ', '-')}-{Path(options.model).stem}-{options.seconds:g}s"
    kept = options.work / f"{who}-{name}-{seed}.json"
    if kept.is_file():
        return TrainedRow.from_dict(json.loads(kept.read_text(encoding="utf-8")))
    began, answers = time.monotonic(), options.work / f"{who}-{name}-{seed}.answers"
    if contender in (OURS, OURS_HALF, *CONTROLS):
        budget, out = options.seconds / (2 if contender == OURS_HALF else 1), options.work / f"{who}-{name}-{seed}"
        recipe = ["--recipe", CONTROLS[contender]] if contender in CONTROLS else []
        call("zoo", "train", options.model, "--data", str(data), "--budget", f"{budget:g}s", "--out", str(out), *recipe)
        with (out / "predictions.csv").open(encoding="utf-8") as file:
            found = {row["picture"]: row["predicted"] for row in csv.DictReader(file) if row["split"] == "test"}
    else:
        told = [str(weights or "none"), f"{options.seconds:g}", str(seed), str(answers)]
        if weights is None:
            told += FROM_NOTHING[options.model]
        call(str(PEERS / f"{contender}.py"), str(data), *told)
        found = json.loads(answers.read_text(encoding="utf-8"))
    seconds = time.monotonic() - began
    pictures = sorted(path.relative_to(data / "test").as_posix() for path in (data / "test").rglob("*.*"))
    right = "".join(str(int(found[picture] == picture.partition("/")[0])) for picture in pictures)
    row = TrainedRow(contender=contender, data=name, seed=seed, seconds=seconds, right=right)
    write_json(kept, row.to_dict())
    print(f"{name:8} seed {seed}  {contender:26} {100 * row.top1:5.1f} %  {seconds:4.0f} s", flush=True)
    return row


def result_of(rows: list[TrainedRow], options: argparse.Namespace) -> Result:
    """The runs as a result, with what a reader needs to know of them."""
    variant, threads = find_model_variant(options.model), torch.get_num_threads()
    start = "weights" if has_weights(options.model) else "nothing"
    name = f"{variant.id}-from-{start}-{options.seconds:g}s{'-controls' if options.controls else ''}"
    subject = Subject(name=name, batch_sizes=(), precision="fp32", threads=threads)
    return Result(
        kind="finetuning",
        name=name,
        environment=measured_on(processor_name()),
        settings={
            "subjects": [subject.to_dict()],
            "mode": f"each contender had {options.seconds:g} s on {threads} threads, from {start}; runs took turns",
            "model": variant.id,
            "threads": threads,
            "seconds": options.seconds,
        },
        data=FinetuningData(rows=tuple(rows)).to_dict(),
    )


if __name__ == "__main__":
    main()
