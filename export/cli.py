"""Owns the commands `zoo export`, `zoo predict` and `zoo evaluate`: parse, call one function, print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zoo.options import device_option, json_option

if TYPE_CHECKING:
    from rich.table import Table

    from export.passport import Passport
    from export.pipeline import ExportResult
    from export.predict import Answer
    from zoo.machine import Device

# Beside the rows they name, which need torch and onnx to import; a test compares them.
PRECISIONS = click.Choice(["fp32", "fp16"])
BUILDERS = click.Choice(["auto", "tensorrt", "tensorrt-rtx"])


@click.command()
@click.argument("model")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path(),
    help="A folder, or a path ending in .onnx  [default: this folder]",
)
@click.option("--trt", type=PRECISIONS, help="Build a TensorRT plan too, in this precision.")
@click.option(
    "--profile",
    type=(int, int, int),
    default=(1, 8, 32),
    show_default=True,
    metavar="MIN OPT MAX",
    help="Batches the plan takes, and the one it is tuned for.",
)
@click.option(
    "--builder", type=BUILDERS, default="auto", show_default=True, help="auto: tensorrt if it can build here."
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="8.6",
    help="Compute capability to build for (tensorrt-rtx); repeatable.",
)
@click.option("--image-size", type=click.IntRange(16), help="Side of the input, px; by default the checkpoint's own.")
@click.option("--data", help="Pictures to compare on: digits or a folder; by default those it was trained beside.")
@click.option("--num-pictures", type=click.IntRange(1), default=64, show_default=True, help="Pictures to compare on.")
@click.option("--no-parity", is_flag=True, help="Skip the comparison; the passport says so.")
@click.option("--random-weights", is_flag=True, help="Untrained, for latency work only; the passport says so.")
@json_option
def export(
    model: str,
    out: Path,
    trt: str | None,
    profile: tuple[int, int, int],
    builder: str,
    targets: tuple[str, ...],
    image_size: int | None,
    data: str | None,
    num_pictures: int,
    no_parity: bool,
    random_weights: bool,
    as_json: bool,
) -> None:
    """Turn MODEL into ONNX and a TensorRT plan, checked.

    MODEL is an id (its run's checkpoint, else its published weights) or a checkpoint's path. Real pictures go through
    PyTorch and every artifact; if an answer differs, nothing is written and the exit code is 3.
    """
    from rich.text import Text

    from export.engine.build import BatchProfile
    from export.pipeline import Options, export_model
    from export.watch import watching
    from zoo.console import log_console, results_console

    least, best, most = profile
    options = Options(
        model=model,
        out=out,
        trt=trt,
        profile=BatchProfile(min=least, opt=best, max=most),
        builder=builder,
        targets=targets,
        data=data,
        num_pictures=num_pictures,
        image_size=image_size,
        random_weights=random_weights,
        parity=not no_parity,
    )
    with watching(log_console()) as watch:
        result = export_model(options, watch=watch)
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=2))
        return
    console = results_console()
    console.print(export_table(result))
    for remark in export_remarks(result):
        console.print(Text(remark, style="dim"), soft_wrap=True)


def export_table(result: ExportResult) -> Table:
    """The published files, a line each: what they are and how far they are from PyTorch."""
    from rich.filesize import decimal
    from rich.table import Table
    from rich.text import Text

    table = Table("file", box=None, pad_edge=False, header_style="bold")
    for column in ("size", "sha256", "type", "max error", "mean error", "same class"):
        table.add_column(column, justify="right", no_wrap=True)
    passport = result.passport
    for kind, path, card in (("onnx", result.onnx, passport.onnx), ("plan", result.plan, passport.plan)):
        if path and card:
            table.add_row(
                Text(str(path)), decimal(card.bytes), card.sha256[:12], card.precision, *_parity_cells(passport, kind)
            )
    table.add_row(Text(str(result.passport_file)))
    return table


def _parity_cells(passport: Passport, kind: str) -> tuple[str, str, str]:
    # A plan that could not be run here shows the numbers of the graph it was built from; a remark says so.
    found = passport.parity[kind] or (passport.parity["graph"] if kind == "plan" else None)
    if not found:
        return "–", "–", "–"
    same = round(found["top1_agreement"] * found["n"])
    ties = f" + {found['ties']} ties" if found["ties"] else ""
    return f"{found['max_abs_error']:.1e}", f"{found['mean_abs_error']:.1e}", f"{same}{ties} of {found['n']}"


def export_remarks(result: ExportResult) -> list[str]:
    """What the table cannot say: who built the plan, and what was not compared."""
    passport, remarks = result.passport, []
    if passport.builder:
        targets = ", ".join(passport.builder["targets"])
        remarks.append(
            f"Built by {passport.builder['name']} {passport.builder['version']} for compute capability {targets}."
        )
    if passport.plan and not passport.parity["plan"]:
        numbers = " The numbers are those of the graph it was built from." if passport.parity["graph"] else ""
        remarks.append(f"The plan was {passport.parity['notes']['plan']}.{numbers}")
    elif not passport.parity["onnx"]:
        remarks.append(f"The comparison was {passport.parity['notes']['onnx']}.")
    if passport.random_weights:
        remarks.append("Random weights: for latency only.")
    return remarks


@click.command()
@click.argument("artifact")
@click.argument("pictures", nargs=-1, required=True, metavar="PICTURE...", type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Classes to name.")
@device_option
@json_option
def predict(artifact: str, pictures: tuple[Path, ...], top: int, device: Device, as_json: bool) -> None:
    """Classify pictures with ARTIFACT: a checkpoint, an .onnx, a .plan, or a model's id.

    A broken picture is named on stderr, the others are still classified, and the exit code is 1.
    """
    from rich.text import Text

    from export.predict import predict as predict_pictures
    from export.runners.open import open_runner
    from zoo.console import log_console, results_console
    from zoo.errors import DataError

    broken = 0
    with open_runner(artifact, device=device) as runner:
        for answer in predict_pictures(runner, pictures, top=top):
            if answer.error:
                broken += 1
                log_console().print(Text(f"{answer.error.problem} {answer.error.hint}", style="red"))
            elif as_json:
                click.echo(json.dumps(answer.to_dict(), ensure_ascii=False))
            else:
                results_console().print(Text(str(answer.picture), style="bold"), soft_wrap=True)
                results_console().print(answer_table(answer))
    if broken:
        raise DataError(f"{broken} of {len(pictures)} pictures could not be read.")


def answer_table(answer: Answer) -> Table:
    """One picture's classes as bars."""
    from rich.bar import Bar
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False)
    table.add_column(min_width=24)
    table.add_column(width=40)
    table.add_column(justify="right")
    table.add_column(justify="right", style="dim")
    for place, row in enumerate(answer.predictions):
        bar = Bar(1.0, 0.0, row.score, color="green" if place == 0 else "blue")
        table.add_row(Text(row.class_name), bar, f"{row.score:.1%}", str(row.index))
    return table


@click.command()
@click.argument("artifact")
@click.option(
    "--data", help="digits or a folder of labelled pictures; by default what a checkpoint was trained beside."
)
@click.option("--seed", type=click.IntRange(0), help="Split of a folder that has none, as `zoo train --seed` made it.")
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Pictures at once, at most.")
@device_option
@json_option
def evaluate(artifact: str, data: str | None, seed: int | None, batch_size: int, device: Device, as_json: bool) -> None:
    """Measure the accuracy of ARTIFACT: a checkpoint, an .onnx, a .plan, or a model's id.

    Broken pictures are named on stderr and left out.
    """
    from rich.text import Text

    from export.evaluate import evaluate as evaluate_runner
    from export.evaluate import open_data
    from export.runners.open import open_runner
    from export.watch import watching
    from zoo.console import log_console, results_console

    console = log_console()
    pictures = open_data(artifact, data, seed=seed)
    with open_runner(artifact, device=device) as runner, watching(console) as watch:
        watch.step(f"Evaluate {artifact} on {pictures.name}, {runner.device}")
        result = evaluate_runner(
            runner,
            pictures,
            batch_size=batch_size,
            on_progress=lambda done, total: watch.progress(f"{done}/{total}", done, total),
        )
    for message in result.broken:
        console.print(Text(f"Left out: {message}", style="yellow"))
    if as_json:
        click.echo(json.dumps(result.to_dict()))
        return
    results_console().print(
        Text.assemble(
            (result.artifact, "bold"),
            f"  top-1 {result.top1:.2%}  top-5 {result.top5:.2%}  loss {result.loss:.4f}  "
            f"on {result.n} pictures of {pictures.name}",
        )
    )
