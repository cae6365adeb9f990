"""Owns the commands `zoo train` and `zoo bench train`: parse, call one function, print."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import click

from zoo.machine import Device
from zoo.options import FOLDER, Finite, device_option, json_option, results_option, seed_option

TRACKERS = click.Choice(["tensorboard", "mlflow", "wandb"])
AUGMENT_ON = click.Choice(["auto", "device", "workers"])
PRECISIONS = click.Choice(["auto", "fp32", "bf16", "fp16"])


@click.command()
@click.argument("model")
@click.option(
    "--data",
    default="digits",
    show_default=True,
    help="digits; a folder: train/ and val/, or one folder per class; shards of `zoo data pack` or `index`, also by "
    "their https:// address; an .npz file.",
)
@click.option(
    "--recipe",
    "recipe_name",
    metavar="NAME",
    help="How to train, docs/training.md has the list; by default digits or folder, whichever fits the data.",
)
@click.option("--epochs", type=click.IntRange(1), help="Epochs of the whole run, at least one for each stage.")
@click.option("--batch-size", type=click.IntRange(2), help="Pictures a step, in every stage.")
@click.option("--lr", "learning_rate", type=Finite(0, min_open=True), help="Peak learning rate.")
@click.option(
    "--image-size", type=click.IntRange(16), help="Size of the largest stage, px; the others keep their shares of it."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    help="Change any setting of the recipe, after the flags above; repeatable. stages.2.image_size=256 is the second "
    "stage as --plan counts, stages.all.accumulate=4 every one, clip_grad_norm=1 the run's; --plan --json names all.",
)
@click.option("--class-weights", metavar="balanced|FILE", help='Count rare classes more; FILE is {"class": weight, …}.')
@click.option("--teacher", metavar="MODEL", help="Distil from trained weights of the same classes.")
@click.option("--distill-alpha", type=Finite(0, 1), help="The teacher's share of the loss  [default: 0.5]")
@click.option("--temperature", type=Finite(0, min_open=True), help="Softens both sides of distillation  [default: 1]")
@seed_option("Decides initialisation, order, augmentation and split.")
@device_option
@click.option("--precision", type=PRECISIONS, default="auto", show_default=True, help="auto: bf16 or fp16 on a GPU.")
@click.option("--workers", type=click.IntRange(0), help="Processes that decode pictures.")
@click.option(
    "--augment-on",
    type=AUGMENT_ON,
    default="auto",
    show_default=True,
    help="Who flips and RandAugments; auto: the device if it is a GPU. The pictures are the same.",
)
@click.option(
    "--auto-batch", is_flag=True, help="Where a stage does not fit the GPU's memory, accumulate until it does."
)
@click.option("--compile", "compiled", is_flag=True, help="torch.compile the network, once for each stage.")
@click.option(
    "--save-every",
    type=Finite(0),
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="How often what --resume needs is written; 0: after every step.",
)
@click.option("-o", "--out", type=FOLDER, help="Run folder  [default: runs/MODEL]")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@click.option(
    "--auto-resume",
    is_flag=True,
    help="The same where there is one, nothing where it is finished, else begin. For requeued jobs.",
)
@click.option(
    "--tracker",
    "trackers",
    multiple=True,
    type=TRACKERS,
    help="Send the run's figures there too; may be given several times.",
)
@click.option("--plan", is_flag=True, help="Print the stages and what they cost; train nothing.")
@json_option
def train(
    model: str,
    data: str,
    recipe_name: str | None,
    epochs: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    image_size: int | None,
    settings: tuple[str, ...],
    class_weights: str | None,
    teacher: str | None,
    distill_alpha: float | None,
    temperature: float | None,
    seed: int,
    device: str,
    precision: str,
    workers: int | None,
    augment_on: str,
    auto_batch: bool,
    compiled: bool,
    save_every: float,
    out: Path | None,
    resume: bool,
    auto_resume: bool,
    trackers: tuple[str, ...],
    plan: bool,
    as_json: bool,
) -> None:
    """Train MODEL with progressive learning.

    An id trains from scratch; a checkpoint's path, a run folder or the id of published weights starts from those
    weights, with a new classifier where the classes differ.

    Image size, RandAugment, mixup and dropout rise together in stages. The run folder gets checkpoint.safetensors,
    metrics.jsonl, report.html (also while it trains), curves.png and confusion.png. Ctrl-C and SIGTERM stop
    it after writing where it was; --resume goes on from there.
    """
    from train.processes.distributed import find_world
    from train.processes.stopping import RunFinished, RunStopped
    from train.progressive.cost import estimate
    from train.progressive.overrides import apply_overrides
    from train.progressive.plan import print_plan
    from train.progressive.recipe import check_recipe, override
    from train.session import find_start, recipe_for, train_model
    from zoo.console import log_console
    from zoo.data.open import open_splits
    from zoo.weights.resolve import find_model_variant, run_folder

    variant = find_model_variant(model)
    recipe = override(
        recipe_for(variant, data, recipe_name),
        variant,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        image_size=image_size,
    )
    flags: dict[str, Any] = {
        "class_weights": class_weights,
        "teacher": teacher,
        "distill_alpha": distill_alpha,
        "temperature": temperature,
    }
    recipe = replace(recipe, **{name: value for name, value in flags.items() if value is not None})
    recipe = check_recipe(apply_overrides(recipe, settings), variant)
    train_set, val_set = open_splits(data, seed=seed)
    cost = estimate(variant, recipe, len(train_set), len(train_set.classes))
    is_first = find_world().is_first
    if plan:
        if is_first:
            print_plan(variant, recipe, cost, as_json=as_json)
        return
    log = log_console()
    log.quiet = not is_first
    log.print(
        f"[bold]{variant.name}[/] on {data}: {len(train_set)} training and {len(val_set)} validation pictures, "
        f"{len(train_set.classes)} classes, recipe {recipe.name}, {cost.share_of_fixed_size:.0%} of the compute of "
        f"training at {recipe.largest_size} px throughout",
    )
    try:
        outcome = train_model(
            variant,
            recipe,
            train_set,
            val_set,
            data=data,
            folder=run_folder(variant.id, out),
            device=cast(Device, device),
            precision=precision,
            seed=seed,
            workers=workers,
            augment_on=augment_on,
            resume=resume,
            auto_resume=auto_resume,
            trackers=trackers,
            start=find_start(model),
            auto_batch=auto_batch,
            compile=compiled,
            save_every_s=save_every,
            console=log,
        )
    except RunFinished as finished:
        log.print(f"{finished} Without --auto-resume a new run begins, and this one is kept under another name.")
        return
    except RunStopped as stopped:
        log.print(f"Stopped {stopped.where}. The same command with --resume goes on from there.")
        raise click.exceptions.Exit(stopped.exit_code) from stopped
    if not is_first:
        return
    if as_json:
        result = {"checkpoint": str(outcome.checkpoint), "top1": outcome.result.top1, "loss": outcome.result.loss}
        click.echo(json.dumps(result))
    else:
        click.echo(f"{100 * outcome.result.top1:.2f} % top-1 at {recipe.test_size} px  {outcome.checkpoint}")


@click.command("train")
@click.argument("model")
@click.option(
    "--recipe", "recipe_name", default="folder", show_default=True, metavar="NAME", help="Whose stages to time."
)
@click.option("--batch-size", type=click.IntRange(2), help="Pictures a step  [default: the stages' own]")
@click.option("--image-size", type=click.IntRange(16), help="Size of the last stage, px.")
@click.option("--steps", type=click.IntRange(2), default=20, show_default=True, help="Timed steps a stage.")
@device_option
@click.option("--precision", type=PRECISIONS, default="auto", show_default=True, help="auto: bf16 or fp16 on a GPU.")
@click.option(
    "--augment-on",
    type=AUGMENT_ON,
    default="auto",
    show_default=True,
    help="With device the steps flip and RandAugment; auto: if it is a GPU.",
)
@click.option("--compile", "compiled", is_flag=True, help="torch.compile the network, once for each stage.")
@results_option
@json_option
def bench_train(
    model: str,
    recipe_name: str,
    batch_size: int | None,
    image_size: int | None,
    steps: int,
    device: str,
    precision: str,
    augment_on: str,
    compiled: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Time optimizer steps of MODEL at every stage's size: pictures a second."""
    import torch

    from train.learn.run import Settings
    from train.learn.throughput import measure_training
    from train.progressive.recipe import override
    from train.session import choose_augmentation, choose_precision, recipe_for
    from zoo.console import log_console, results_console
    from zoo.files import check_folder
    from zoo.machine import choose_device
    from zoo.results import Summary, write_result
    from zoo.weights.resolve import find_model_variant
    from zoo.wording import milliseconds, tail

    check_folder(out)
    variant = find_model_variant(model)
    recipe = override(recipe_for(variant, "", recipe_name), variant, batch_size=batch_size, image_size=image_size)
    chosen = torch.device(choose_device(cast(Device, device)))
    settings = Settings(
        device=chosen,
        precision=choose_precision(precision, chosen),
        seed=0,
        workers=0,
        augment_on=choose_augmentation(augment_on, chosen),
        compile=compiled,
    )
    result = measure_training(variant, recipe, settings, steps=steps, num_classes=1000, console=log_console())
    path = write_result(out, result)
    if as_json:
        click.echo(json.dumps(result.to_dict()))
        return
    console = results_console()
    for row in result.data["rows"]:
        summary = Summary.from_dict(row["ms_per_step"])
        console.print(
            f"stage {row['stage']}  {row['image_size']:>3} px  batch {row['batch_size']:>4}  "
            f"[bold]{row['pictures_per_second']:>8.1f}[/] pictures/s  p50 {milliseconds(summary.p50_ms)}  "
            f"{tail(summary)}  n {summary.n}"
        )
    console.print(str(path))
