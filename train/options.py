"""Owns what `zoo train`, `compare` and `bench train` can be told, a row each; it resolves nothing, loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from zoo.model.spec import Channels
from zoo.options import RESULTS, Arg, DeviceChoice, GroupBy, Opt, Seed
from zoo.rows import Count, CountOrNone, NotNegative, Positive, Row, Share, Some, Text, ThreadCount, Within

# Which weights a run ends with, and what the best of them are the best in.
Keep = Literal["best", "last"]
Metric = Literal["top1", "loss", "balanced_accuracy", "macro_f1", "map"]
# Metrics in which a rare class counts as much as a frequent one.
COUNTS_CLASSES_ALIKE: tuple[Metric, ...] = ("balanced_accuracy", "macro_f1")
# Which pictures an epoch draws: each of them once, or of every class equally many.
Sampler = Literal["shuffle", "balanced"]
# What training computes in; fp32 is full precision, the others are mixed with it.
MixedPrecision = Literal["fp32", "bf16", "fp16"]
# Where pictures are flipped and RandAugmented: as batches on the device, or one by one in the decoding processes.
AugmentOn = Literal["device", "workers"]


@dataclass(frozen=True, kw_only=True)
class TrackerRow(Row):
    """A tracker: the package it needs, the extra that installs it, and its class in `train/watch/sinks.py`."""

    name: Text
    title: Text
    package: Text
    extra: Text
    sink: Text


TRACKERS = (
    TrackerRow(name="tensorboard", title="TensorBoard", package="tensorboard", extra="watch", sink="TensorBoardSink"),
    TrackerRow(name="mlflow", title="MLflow", package="mlflow", extra="mlflow", sink="MlflowSink"),
    TrackerRow(name="wandb", title="Weights & Biases", package="wandb", extra="wandb", sink="WandbSink"),
)
if TYPE_CHECKING:
    TrackerName = str
else:
    TrackerName = Literal[tuple(row.name for row in TRACKERS)]

# Options that several commands have.
BatchSize = Annotated[int, Within(2)]
LargestSize = Annotated[int, Within(16)]
PrecisionOption = Annotated[Literal["auto", MixedPrecision], Opt("auto: bf16 or fp16 on a GPU.")]
CompileOption = Annotated[bool, Opt("torch.compile the network, once for each stage.")]
CheckpointActivations = Annotated[
    bool, Opt("Compute each block again for its gradient instead of keeping it: less memory, a third more computing.")
]


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Row):
    """Everything `zoo train` can be told; `train.session.train_model` does it."""

    model: Annotated[str, Arg("MODEL")]
    data: Annotated[
        str,
        Opt(
            "digits; a folder: train/ and val/, or one folder per class; a file of labels: .csv, .tsv, .jsonl or "
            ".parquet; shards of `zoo data pack` or `index`, also by their https:// address; an .npz file."
        ),
    ] = "digits"
    group_by: GroupBy = None
    recipe: Annotated[
        str | None,
        Opt("How to train: docs/training.md lists them  [default: finetune from weights, else folder]", (), "NAME"),
    ] = None
    epochs: Annotated[Count | None, Opt("Epochs of the whole run, at least one for each stage.", unless="budget")] = (
        None
    )
    budget: Annotated[
        str | None, Opt("Train for a time: epochs, sizes and stages are chosen to fill it.", metavar="20m")
    ] = None
    batch_size: Annotated[BatchSize | None, Opt("Pictures a step, in every stage.")] = None
    learning_rate: Annotated[Positive | None, Opt("Peak learning rate.", flags=("--lr",))] = None
    find_lr: Annotated[
        bool, Opt("Choose the peak learning rate by a range test of 40 to 100 steps before the first epoch.")
    ] = False
    image_size: Annotated[
        LargestSize | None, Opt("Size of the largest stage, px; the others keep their shares of it.")
    ] = None
    overrides: Annotated[
        tuple[str, ...],
        Opt(
            "Change any setting of the recipe, after the flags above; repeatable. stages.2.image_size=256 is the "
            "second stage as --plan counts, stages.all.accumulate=4 every one, clip_grad_norm=1 the run's; --plan "
            "--json names all.",
            flags=("--set",),
            metavar="PATH=VALUE",
        ),
    ] = ()
    sampler: Annotated[
        Sampler | None,
        Opt(
            "shuffle: an epoch has every picture once; balanced: every class equally often  [default: shuffle; from "
            "weights balanced where a class has five times the pictures of another]"
        ),
    ] = None
    class_weights: Annotated[
        str | None, Opt('Count rare classes more; FILE is {"class": weight, …}.', (), "balanced|FILE")
    ] = None
    focal_gamma: Annotated[
        NotNegative | None, Opt("Focal loss: easy pictures count less; usual is 2, 0 is without.", metavar="GAMMA")
    ] = None
    channels: Annotated[
        Channels | None, Opt("Planes of a picture: 1 grey, 3 RGB, 4 RGBA  [default: MODEL's own, 3]")
    ] = None
    teacher: Annotated[str | None, Opt("Distil from trained weights of the same classes.", metavar="MODEL")] = None
    distill_alpha: Annotated[Share | None, Opt("The teacher's share of the loss  [default: 0.5]")] = None
    temperature: Annotated[Positive | None, Opt("Softens both sides of distillation  [default: 1]")] = None
    ema: Annotated[
        bool,
        Opt("Validate and keep the weights as they are, not their moving average: ema_decay=0.", flags=("--no-ema",)),
    ] = True
    keep: Annotated[Keep | None, Opt("Which epoch at the final size the checkpoint has  [default: best]")] = None
    metric: Annotated[
        Metric | None,
        Opt(
            "What the best epoch is the best in  [default: top1; map of several labels; balanced_accuracy where a "
            "class has five times the pictures of another]"
        ),
    ] = None
    patience: Annotated[
        Count | None, Opt("Stop after so many epochs at the final size without one better than those before.")
    ] = None
    folds: Annotated[
        Count | None,
        Opt("Cross-validate: divide all pictures into so many folds, and train once for each, holding it out."),
    ] = None
    fold: Annotated[
        Count | None, Opt("Train the run of this fold alone, as one of several machines does.", needs="folds")
    ] = None
    seed: Annotated[Seed, Opt("Decides initialisation, order, augmentation and split.")] = 0
    device: DeviceChoice = "auto"
    precision: PrecisionOption = "auto"
    workers: Annotated[
        CountOrNone | None, Opt("Decoding processes  [default: one a core, at most 8; none on the only one]")
    ] = None
    augment_on: Annotated[
        Literal["auto", AugmentOn],
        Opt("Who flips and RandAugments; auto: the device if it is a GPU. The pictures are the same."),
    ] = "auto"
    auto_batch: Annotated[bool, Opt("If a stage does not fit the GPU's memory, take its batches in parts.")] = False
    checkpoint_activations: CheckpointActivations = False
    compile: CompileOption = False
    qat: Annotated[
        bool,
        Opt("Train for int8: weights and activations are rounded as they will be, and their ranges travel along."),
    ] = False
    save_every_s: Annotated[
        NotNegative, Opt("How often what --resume needs is saved; 0: after every step.", ("--save-every",), "SECONDS")
    ] = 120
    out: Annotated[Path | None, Opt("Run folder  [default: runs/MODEL]", ("-o", "--out"), "DIRECTORY")] = None
    resume: Annotated[bool, Opt("Continue an interrupted run.")] = False
    extend: Annotated[
        bool,
        Opt("With --resume: go on with other --epochs, --lr or --budget, on the schedule they make.", needs="resume"),
    ] = False
    auto_resume: Annotated[
        bool, Opt("Continue an interrupted run, leave a finished one as it is, else start one. For requeued jobs.")
    ] = False
    trackers: Annotated[tuple[TrackerName, ...], Opt("Send the figures there too; repeatable.", ("--tracker",))] = ()


@dataclass(frozen=True, kw_only=True)
class CompareOptions(Row):
    """Everything `zoo compare` can be told; `train.compare.compare_runs` does it."""

    runs: Annotated[tuple[Path, ...], Some(), Arg("RUN...")]
    split: Annotated[Literal["val", "test"], Opt("Which pictures' answers to compare.")] = "val"


@dataclass(frozen=True, kw_only=True)
class BenchTrainOptions(Row):
    """Everything `zoo bench train` can be told; `train.learn.throughput.measure_training` does it."""

    model: Annotated[str, Arg("MODEL")]
    recipe: Annotated[str, Opt("Whose stages to time.", metavar="NAME")] = "folder"
    batch_size: Annotated[BatchSize | None, Opt("Pictures a step  [default: the stages' own]", unless="at_batches")] = (
        None
    )
    image_size: Annotated[LargestSize | None, Opt("Size of the last stage, px.", unless="at_sizes")] = None
    at_sizes: Annotated[
        tuple[LargestSize, ...],
        Opt("Instead of the stages, every size with every batch; px, repeatable.", flags=("--at-size",)),
    ] = ()
    at_batches: Annotated[
        tuple[BatchSize, ...], Opt("The same: pictures a step; repeatable.", flags=("--at-batch",))
    ] = ()
    beside_timm: Annotated[bool, Opt("timm's network makes the same steps in turn.")] = False
    steps: Annotated[int, Within(3), Opt("Timed steps a stage.")] = 20
    device: DeviceChoice = "auto"
    threads: Annotated[ThreadCount | None, Opt("Processor threads.  [default: PyTorch's]")] = None
    precision: PrecisionOption = "auto"
    augment_on: Annotated[
        Literal["auto", AugmentOn], Opt("With device the steps flip and RandAugment; auto: if it is a GPU.")
    ] = "auto"
    checkpoint_activations: CheckpointActivations = False
    compile: CompileOption = False
    out: Annotated[Path, Opt("Folder of the results.", ("-o", "--out"), "DIRECTORY")] = RESULTS

    @property
    def is_grid(self) -> bool:
        """Whether sizes and batches are asked for, instead of the recipe's stages."""
        return bool(self.at_sizes or self.at_batches)

    @property
    def training(self) -> TrainOptions:
        """The run whose steps are timed."""
        shared = ("model", "recipe", "batch_size", "image_size", "device", "precision", "augment_on", "compile")
        same = {name: getattr(self, name) for name in (*shared, "checkpoint_activations")}
        return TrainOptions(**same, workers=0)
