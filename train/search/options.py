"""Owns what `zoo search` can be told: ranges, defaults, help; it resolves nothing and loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from train.options import BatchSize, LargestSize, PrecisionOption, TrainOptions
from zoo.model.spec import Channels
from zoo.options import DeviceChoice, GroupBy, Opt, Seed
from zoo.rows import Count, CountOrNone, Matching, Positive, Row

SamplerName = Literal["random", "tpe", "nsga2"]
# Where no number and no budget is given.
TRIALS = 60
# A finalist's training over a trial's.
LONGER = 4
StudyName = Annotated[str, Matching(r"[\w.-]{1,100}", "letters, digits, ., - and _")]


@dataclass(frozen=True, kw_only=True)
class SearchOptions(Row):
    """Everything `zoo search` can be told; `train.search.run.search` does it."""

    data: Annotated[str, Opt("As in zoo train: digits, a folder, a file of labels, shards, an .npz file.")] = "digits"
    group_by: GroupBy = None
    space: Annotated[str, Opt("paper, small, control, or a .toml file: --write-space makes one to edit.")] = "paper"
    trials: Annotated[
        Count | None,
        Opt(f"Networks to train shortly, those of earlier runs included  [default: {TRIALS}]", (), "N"),
    ] = None
    budget: Annotated[
        str | None,
        Opt("Begin no trial that would not end within this time, finalists included.", metavar="2h"),
    ] = None
    sampler: Annotated[
        SamplerName,
        Opt("Who proposes: chance, TPE by the reward, or NSGA-II for accuracy, step time and parameters together."),
    ] = "random"
    prune: Annotated[bool, Opt("Train every trial to its end, also those that are behind.", flags=("--no-prune",))] = (
        True
    )
    epochs: Annotated[Count, Opt("Epochs of a trial.")] = 10
    image_size: Annotated[LargestSize | None, Opt("Size of a trial, px  [default: the space's]")] = None
    recipe: Annotated[str | None, Opt("How to train, as in zoo train.", metavar="NAME")] = None
    batch_size: Annotated[BatchSize | None, Opt("Pictures a step.")] = None
    learning_rate: Annotated[Positive | None, Opt("Peak learning rate.", flags=("--lr",))] = None
    overrides: Annotated[
        tuple[str, ...],
        Opt("Change any setting of the recipe, as in zoo train; repeatable.", ("--set",), "PATH=VALUE"),
    ] = ()
    finalists: Annotated[
        CountOrNone, Opt("How many of the best are trained again for longer before a winner is named; 0: none.")
    ] = 4
    long_epochs: Annotated[Count | None, Opt(f"Epochs of a finalist  [default: {LONGER} times a trial's]")] = None
    long_seeds: Annotated[Count, Opt("How often each finalist is trained, with a fresh seed each time.")] = 2
    latency_table: Annotated[
        Path | None, Opt("Let latency join the reward: a file of `zoo bench latency-table`.", metavar="FILE")
    ] = None
    channels: Annotated[Channels | None, Opt("Planes of a picture: 1 grey, 3 RGB, 4 RGBA  [default: 3]")] = None
    seed: Annotated[Seed, Opt("Decides what is drawn, and how trials begin.")] = 0
    device: DeviceChoice = "auto"
    precision: PrecisionOption = "auto"
    workers: Annotated[CountOrNone | None, Opt("Decoding processes, as in zoo train.")] = None
    store: Annotated[
        str | None,
        Opt(
            "Where trials are kept: a file, or postgresql://… or mysql://… for workers on several machines  "
            "[default: search.db in DIR]",
            metavar="URL",
        ),
    ] = None
    study: Annotated[StudyName, Opt("The search's name in a store that has several.", metavar="NAME")] = "search"
    out: Annotated[Path, Opt("Folder of the search.", ("-o", "--out"), "DIR")] = Path("runs/search")

    @property
    def trial_count(self) -> int | None:
        """How many trials to make; None: as many as the budget has time for."""
        return TRIALS if self.trials is None and self.budget is None else self.trials

    @property
    def stops_early(self) -> bool:
        """Whether trials that are behind are ended: never for NSGA-II, to which a cheap network of little accuracy is
        good.
        """
        return self.prune and self.sampler != "nsga2"

    @property
    def finalist_epochs(self) -> int:
        """Epochs of a finalist's training."""
        return self.long_epochs or LONGER * self.epochs

    def training(self, model: str, image_size: int) -> TrainOptions:
        """What `zoo train` would be told to train a network as a trial is trained.

        The last epoch is kept: the best of several, chosen by the pictures that judge it, would flatter the unsteady.
        """
        shared = (
            "data",
            "group_by",
            "recipe",
            "epochs",
            "batch_size",
            "learning_rate",
            "overrides",
            "seed",
            "channels",
        )
        same = {name: getattr(self, name) for name in (*shared, "device", "precision", "workers")}
        return TrainOptions(model=model, image_size=self.image_size or image_size, keep="last", **same)
