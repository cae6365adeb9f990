"""Owns the commands `zoo train` and `zoo bench train`: parse, call one function, print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from train.cost import RunCost
    from train.recipe import Recipe
    from zoo.spec import Variant

DEVICES = click.Choice(["auto", "cpu", "cuda"])
FOLDER = click.Path(path_type=Path, file_okay=False)
PRECISIONS = click.Choice(["auto", "fp32", "bf16", "fp16"])


@click.command()
@click.argument("model")
@click.option(
    "--data", default="digits", show_default=True, help="digits, or a folder: train/ and val/, or one folder per class."
)
@click.option("--recipe", "recipe_name", help="digits or folder; by default the one that fits the data.")
@click.option("--epochs", type=click.IntRange(1), help="Epochs of the whole run.")
@click.option("--batch-size", type=click.IntRange(2), help="Pictures a step, in every stage.")
@click.option("--lr", "learning_rate", type=click.FloatRange(0, min_open=True), help="Peak learning rate.")
@click.option(
    "--image-size", type=click.IntRange(16), help="Size of the last stage, px; the others keep their shares of it."
)
@click.option("--seed", default=0, show_default=True, help="Decides initialisation, order, augmentation and split.")
@click.option("--device", type=DEVICES, default="auto", show_default=True, help="auto takes a GPU that works.")
@click.option("--precision", type=PRECISIONS, default="auto", show_default=True, help="auto: bf16 or fp16 on a GPU.")
@click.option("--workers", type=click.IntRange(0), help="Processes that decode pictures.")
@click.option("-o", "--out", type=FOLDER, help="Run folder  [default: runs/MODEL]")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@click.option("--plan", is_flag=True, help="Print the stages and what they cost; train nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result (or the plan) as JSON.")
def train(
    model: str,
    data: str,
    recipe_name: str | None,
    epochs: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    image_size: int | None,
    seed: int,
    device: str,
    precision: str,
    workers: int | None,
    out: Path | None,
    resume: bool,
    plan: bool,
    as_json: bool,
) -> None:
    """Train MODEL with progressive learning.

    An id trains from scratch; a checkpoint's path, a run folder or the id of published weights starts from those
    weights, with a new classifier where the classes differ.

    Image size, RandAugment, mixup and dropout rise together in stages. The run folder gets checkpoint.safetensors,
    metrics.jsonl, curves.png and confusion.png. Ctrl-C stops; --resume goes on.
    """
    from train.cost import estimate
    from train.recipe import override
    from train.session import find_start, recipe_for, train_model
    from zoo.console import log_console
    from zoo.datasets import open_splits
    from zoo.registry import find_model_variant, run_folder

    variant = find_model_variant(model)
    recipe = override(
        recipe_for(variant, data, recipe_name),
        variant,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        image_size=image_size,
    )
    train_set, val_set = open_splits(data, seed=seed)
    cost = estimate(variant, recipe, len(train_set), len(train_set.classes))
    if plan:
        _print_plan(variant, recipe, cost, as_json)
        return
    log = log_console()
    log.print(
        f"[bold]{variant.name}[/] on {data}: {len(train_set)} training and {len(val_set)} validation pictures, "
        f"{len(train_set.classes)} classes, recipe {recipe.name}, {cost.share_of_fixed_size:.0%} of the compute of "
        f"training at {recipe.stages[-1].image_size} px throughout",
    )
    outcome = train_model(
        variant,
        recipe,
        train_set,
        val_set,
        data=data,
        folder=run_folder(variant.id, out),
        device=device,
        precision=precision,
        seed=seed,
        workers=workers,
        resume=resume,
        start=find_start(model),
        console=log,
    )
    if as_json:
        result = {"checkpoint": str(outcome.checkpoint), "top1": outcome.result.top1, "loss": outcome.result.loss}
        click.echo(json.dumps(result))
    else:
        click.echo(f"{100 * outcome.result.top1:.2f} % top-1 at {recipe.test_size} px  {outcome.checkpoint}")


def _print_plan(variant: Variant, recipe: Recipe, cost: RunCost, as_json: bool) -> None:
    from dataclasses import asdict

    from zoo.console import results_console

    if as_json:
        stages = [asdict(stage) for stage in recipe.stages]
        click.echo(json.dumps({"model": variant.id, "recipe": recipe.name, "stages": stages}))
        return
    console = results_console()
    console.print(_plan_table(variant, recipe, cost))
    console.print(
        f"{recipe.epochs} epochs, {sum(stage.steps for stage in cost.stages)} steps, {cost.macs / 1e15:.3g} PMACs: "
        f"{cost.share_of_fixed_size:.0%} of training at {recipe.stages[-1].image_size} px throughout. "
        f"Tested at {recipe.test_size} px.",
    )


def _plan_table(variant: Variant, recipe: Recipe, cost: RunCost) -> Table:
    from rich.table import Table

    table = Table(
        title=f"{variant.name}, recipe {recipe.name} ({recipe.source})",
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    columns = (
        "stage",
        "epochs",
        "px",
        "batch",
        "RandAugment",
        "mixup",
        "CutMix",
        "dropout",
        "stoch. depth",
        "steps",
        "TMACs",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for index, item in enumerate(cost.stages, start=1):
        stage = item.stage
        table.add_row(
            *(
                f"{value:g}"
                for value in (
                    index,
                    stage.epochs,
                    stage.image_size,
                    stage.batch_size,
                    stage.randaugment_magnitude,
                    stage.mixup_alpha,
                    stage.cutmix_alpha,
                    stage.dropout,
                    stage.stochastic_depth_prob,
                    item.steps,
                    round(item.macs / 1e12, 1),
                )
            )
        )
    return table


@click.command("train")
@click.argument("model")
@click.option(
    "--recipe", "recipe_name", default="folder", show_default=True, help="Whose stages to time: digits or folder."
)
@click.option("--batch-size", type=click.IntRange(2), help="Pictures a step  [default: the stages' own]")
@click.option("--image-size", type=click.IntRange(16), help="Size of the last stage, px.")
@click.option("--steps", type=click.IntRange(2), default=20, show_default=True, help="Timed steps a stage.")
@click.option("--device", type=DEVICES, default="auto", show_default=True, help="auto takes a GPU that works.")
@click.option("--precision", type=PRECISIONS, default="auto", show_default=True, help="auto: bf16 or fp16 on a GPU.")
@click.option("-o", "--out", type=FOLDER, default=Path("benchmarks"), show_default=True, help="Folder of the results.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def bench_train(
    model: str,
    recipe_name: str,
    batch_size: int | None,
    image_size: int | None,
    steps: int,
    device: str,
    precision: str,
    out: Path,
    as_json: bool,
) -> None:
    """Time optimizer steps of MODEL at every stage's size: pictures a second."""
    from train.recipe import override
    from train.run import Settings
    from train.session import choose_device, choose_precision, recipe_for
    from train.throughput import measure_training
    from zoo.console import log_console, results_console
    from zoo.registry import find_model_variant
    from zoo.results import write_result

    variant = find_model_variant(model)
    recipe = override(recipe_for(variant, "", recipe_name), variant, batch_size=batch_size, image_size=image_size)
    chosen = choose_device(device)
    settings = Settings(device=chosen, precision=choose_precision(precision, chosen), seed=0, workers=0)
    result = measure_training(variant, recipe, settings, steps=steps, num_classes=1000, console=log_console())
    path = write_result(out, result)
    if as_json:
        click.echo(json.dumps(result.to_dict()))
        return
    console = results_console()
    for row in result.data["rows"]:
        summary = row["ms_per_step"]
        console.print(
            f"stage {row['stage']}  {row['image_size']:>3} px  batch {row['batch_size']:>4}  "
            f"[bold]{row['pictures_per_second']:>8.1f}[/] pictures/s  p50 {summary['p50_ms']:.1f} ms  "
            f"p99 {summary['p99_ms']:.1f} ms  n {summary['n']}"
        )
    console.print(str(path))
