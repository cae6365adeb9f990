"""Does a search find anything? A table of trained networks, searches replayed on it, and finalists trained long.

    python benchmarks/search.py --networks 160     all of it on the embedded digits, on one core
    python benchmarks/search.py --minutes 10       for so long; the same command goes on where it stopped
    python benchmarks/search.py --until table      the table alone; --until long: and what is trained long

    python benchmarks/sets.py cifar10 build/cifar10 --arrays                 CIFAR-10: 5,000 + 2,000 of its pictures
    python benchmarks/search.py --data build/cifar10.npz --networks 152      the same networks on them

Networks of a small space of the paper's kind are drawn in random order, each once, trained for a few epochs, and their
training step is timed in turn with a reference's, in processor time, so that a shared machine disturbs it little. Some
are trained long, to see whether short training ranks networks as long training does; so are published stage tables, and
beside each the network that a search would take at its step time. At last searches are replayed: what a sampler asks
for is looked up in the table, so that repetitions cost nothing. The result is written after every training.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from search_replays import replays
from torch.nn import functional as F

from serve.bench.measure.ratio import Ratio, paired_ratio
from serve.bench.measure.replay import finalist_beside
from serve.bench.measure.search_rows import LongRun, NetworkRow, Published, SearchData
from serve.bench.report.report import keep_result
from train.learn.job import TrainAndVal, make_job
from train.learn.loop import fit
from train.learn.run import start_run
from train.learn.step import normalize
from train.learn.watcher import Watcher
from train.options import TrainOptions
from train.processes.distributed import ALONE
from train.progressive.recipe import Recipe, find_recipe
from zoo.data.open import open_splits
from zoo.errors import ZooError
from zoo.machine import processor_name
from zoo.measure.timing import Call, Schedule, time_call, time_in_turn
from zoo.model.build import build_network
from zoo.model.counts import count_macs, count_params
from zoo.model.space import Candidate, Space, StageSpace
from zoo.model.spec import Variant
from zoo.model.variants import find_variant
from zoo.results import Result, Subject, measured_on, read_results, result_path, write_result

HERE = Path(__file__).parent
# 8 choices a stage, 512 networks: few enough to train all of them.
_stage = partial(StageSpace, num_layers=(1, 2), kernel_sizes=(3,), expand_ratios=(1, 4))
SPACE = Space(
    id="digits",
    stem_channels=8,
    stages=(_stage(out_channels=8, stride=1), _stage(out_channels=16, stride=2), _stage(out_channels=24, stride=2)),
    head_channels=64,
    image_size=24,
    train_size=24,
    eval_size=24,
    dropout=0.0,
    stochastic_depth_prob=0.0,
    source="benchmarks/search.py: 512 networks of three stages",
)
# Stage tables cut to three stages; the last one has a stage of B0 for every stride: Fused-MBConv early, MBConv late.
B0 = find_variant("b0")
PUBLISHED = {
    "b0": B0,
    "v1-b0": find_variant("v1-b0"),
    "s": find_variant("s"),
    "b0, stages 1, 2 and 4": replace(B0, stages=(*B0.stages[:2], B0.stages[3])),
}
BATCH_SIZE = 32
# Steps are timed with the processor's clock of this process, and both networks in turn.
STEPS = Schedule(warmup_ms=0, min_warmup_iterations=2, duration_ms=0, min_iterations=15, rounds=5)


def main() -> None:
    """Go on with the result that is there, as far as the time allows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="what `zoo train --data` takes")
    parser.add_argument("--networks", type=int, default=512, help="of the table")
    parser.add_argument("--short", type=int, default=3, help="epochs of the table's networks")
    parser.add_argument("--long", type=int, default=6, help="epochs of what is trained long")
    parser.add_argument("--ranked", type=int, default=12, help="networks that are trained long to compare rankings")
    parser.add_argument("--seeds", type=int, default=3, help="of finalists and published networks")
    parser.add_argument("--trials", type=int, default=60, help="of a replayed search")
    parser.add_argument("--repetitions", type=int, default=20, help="of every sampler")
    parser.add_argument("--minutes", type=float, help="stop after so many")
    parser.add_argument("--until", choices=["table", "long", "replays"], default="replays", help="the last part")
    parser.add_argument("--seed", type=int, default=0, help="decides what is drawn, and how short training begins")
    parser.add_argument("-o", "--out", type=Path, default=HERE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    deadline = time.monotonic() + 60 * (options.minutes or float("inf"))
    trainings = Trainings(options, SPACE)
    data = trainings.earlier()
    for grown in trainings.grow(data):
        data = grown
        write_result(options.out, trainings.result(data))
        if time.monotonic() > deadline:
            print("The time is over; the same command goes on.", flush=True)
            return
    if data and options.until == "replays":
        data = replace(data, replays=tuple(replays(data, trials=options.trials, repetitions=options.repetitions)))
    keep_result(trainings.result(data), options.out)


class Trainings:
    """One table of one space on one data set: what is there, and what is trained next."""

    def __init__(self, options: argparse.Namespace, space: Space) -> None:
        self.options, self.space = options, space
        self.pictures: TrainAndVal = open_splits(options.data)
        self.classes = len(self.pictures[0].classes)
        rng = np.random.default_rng(options.seed)
        everything = list(space.candidates())
        published = [space.candidate_of(variant) for variant in PUBLISHED.values()]
        self.published = tuple(
            Published(model=model, code=one.code) for model, one in zip(PUBLISHED, published, strict=True)
        )
        drawn = [everything[index] for index in rng.permutation(len(everything))]
        # Those that are published are in every table; they are among the drawn ones at a random place else.
        self.order = list(dict.fromkeys([*published, *drawn]))[: options.networks]
        self.reference = published[0]

    def earlier(self) -> SearchData | None:
        """What the result that is there holds; without replays, which are of the table as it was.

        Raises:
            ZooError: its networks were trained otherwise.
        """
        path = result_path(self.options.out, self.result(None))
        if not path.is_file():
            return None
        (kept,) = read_results([path])
        data = SearchData.from_dict(kept.data)
        short, long = kept.settings["recipes"]
        now = self.settings()["recipes"]
        if short != now[0] or (data.long_runs and long != now[1]):
            raise ZooError(f"{path} is of networks that were trained otherwise.", "Give another folder with --out.")
        return replace(data, replays=(), long_epochs=self.options.long)

    def grow(self, data: SearchData | None) -> Iterator[SearchData]:
        """The data after every further training."""
        known = set(data.by_code) if data else set()
        for candidate in self.order:
            if candidate.code not in known:
                row = self.network(candidate)
                data = replace(data, networks=(*data.networks, row)) if data else self.begin(row)
                yield data
        if data is None or self.options.until == "table":
            return
        done = {(run.code, run.seed, run.why, run.beside) for run in data.long_runs}
        for run in self.wanted(data):
            if (run.code, run.seed, run.why, run.beside) not in done:
                data = replace(data, long_runs=(*data.long_runs, self.long_run(run, data)))
                yield data

    def wanted(self, data: SearchData) -> Iterator[LongRun]:
        """What is to be trained long, without its accuracy: published tables, finalists, and networks to rank.

        Seeds begin above that of short training: what was lucky there has to show it again. The networks to rank are
        those that chance drew first.
        """
        seeds = range(self.options.seed + 1, self.options.seed + 1 + self.options.seeds)
        published = {one.code: one for one in self.published}
        drawn = [row.code for row in data.networks if row.code not in published]
        for one in reversed(published.values()):
            finalist = finalist_beside(data, one.code)
            for seed in seeds:
                yield LongRun(code=one.code, seed=seed, top1=0.0, why="published")
                if finalist:
                    yield LongRun(code=finalist.code, seed=seed, top1=0.0, why="finalist", beside=one.model)
        yield from (LongRun(code=code, seed=seeds[0], top1=0.0, why="ranking") for code in drawn[: self.options.ranked])

    def long_run(self, run: LongRun, data: SearchData) -> LongRun:
        """The run with its accuracy; the same network and seed gives the same one."""
        for earlier in data.long_runs:
            if (earlier.code, earlier.seed) == (run.code, run.seed):
                return replace(run, top1=earlier.top1)
        variant = self.space.variant(data.by_code[run.code].candidate)
        top1 = self.train(variant, self.options.long, run.seed)
        print(f"{run.code:24} {100 * top1:5.1f} %  seed {run.seed}  {run.why}", flush=True)
        return replace(run, top1=top1)

    def begin(self, row: NetworkRow) -> SearchData:
        """The data of one network."""
        train_set, val_set = self.pictures
        return SearchData(
            space=self.space,
            data=Path(self.options.data).stem,
            train_pictures=len(train_set),
            val_pictures=len(val_set),
            short_epochs=self.options.short,
            long_epochs=self.options.long,
            seed=self.options.seed,
            reference=self.reference.code,
            published=self.published,
            networks=(row,),
        )

    def network(self, candidate: Candidate) -> NetworkRow:
        """Train one network for short, and time its step."""
        variant, began = self.space.variant(candidate), time.process_time()
        top1 = self.train(variant, self.options.short, self.options.seed)
        step = self.step_ratio(variant)
        row = NetworkRow(
            candidate=candidate,
            top1=top1,
            step=step,
            num_params=count_params(variant, self.classes),
            macs=count_macs(variant, self.space.image_size, self.classes),
        )
        spent = time.process_time() - began
        print(f"{candidate.code:24} {100 * top1:5.1f} %  step {step.value:.2f}  {spent:.1f} s", flush=True)
        return row

    def recipe(self, epochs: int) -> Recipe:
        """The recipe of the digits, with one stage and without what makes pictures harder."""
        base = find_recipe("digits", find_variant("tiny"))
        stage = replace(
            base.stages[0],
            epochs=epochs,
            image_size=self.space.image_size,
            batch_size=BATCH_SIZE,
            randaugment_magnitude=0.0,
            mixup_alpha=0.0,
            dropout=0.0,
            stochastic_depth_prob=0.0,
        )
        return replace(
            base,
            name=f"search, {epochs} epochs",
            source="benchmarks/search.py",
            stages=(stage,),
            test_size=self.space.image_size,
            learning_rate=4e-3,
            ema_decay=0.9,
            keep="last",
        )

    def train(self, variant: Variant, epochs: int, seed: int) -> float:
        """Train from nothing; the accuracy on the validation pictures, 0…1."""
        asked = TrainOptions(model="tiny", data=self.options.data, workers=0, seed=seed, device="cpu")
        job = replace(make_job(asked, ALONE, self.recipe(epochs), self.pictures, None, None), variant=variant)
        with tempfile.TemporaryDirectory(prefix="zoo-search-") as folder:
            judged = fit(start_run(job), job, state_path=Path(folder) / "state.pt", watcher=Watcher())
        assert judged.top1 is not None, "pictures of one class each"
        return judged.top1

    def step_ratio(self, variant: Variant) -> Ratio:
        """The processor time of a training step as a share of the reference's, both in turn."""
        calls = [self.step_of(variant), self.step_of(self.space.variant(self.reference))]
        timer = partial(time_call, clock=time.process_time_ns)
        own, of_reference = time_in_turn(calls, STEPS, timer)
        return paired_ratio([visit.median_ms for visit in own], [visit.median_ms for visit in of_reference])

    def step_of(self, variant: Variant) -> Call:
        """Forward, loss, backward and AdamW on random pictures."""
        torch.manual_seed(0)
        model = build_network(variant, self.classes).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
        size = self.space.image_size
        pictures = torch.randint(0, 256, (BATCH_SIZE, size, size, 3), dtype=torch.uint8)
        classes = torch.arange(BATCH_SIZE) % self.classes

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(model(normalize(pictures, variant.preprocessing)), classes)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        return step

    def settings(self) -> dict[str, Any]:
        """How everything was trained and timed."""
        recipes = [self.recipe(epochs).to_dict() for epochs in (self.options.short, self.options.long)]
        return {
            "recipes": recipes,
            "schedule": STEPS.to_dict(),
            "clock": "processor time of this process (process_time_ns) around whole steps, in turn with the reference",
            "threads": 1,
        }

    def result(self, data: SearchData | None) -> Result:
        """The result so far; of no data only its name is of use."""
        subject = Subject(name=f"{self.space.id} on {Path(self.options.data).stem}", precision="fp32", threads=1)
        return Result(
            kind="search",
            name=f"{self.space.id}-{Path(self.options.data).stem}",
            environment=measured_on(processor_name()),
            settings={"subjects": [subject.to_dict()]} | self.settings(),
            data=data.to_dict() if data else {},
        )


if __name__ == "__main__":
    main()
