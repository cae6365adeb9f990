"""Owns the commands that move weights: import, convert, pull."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zoo.options import PATH, json_option
from zoo.weights.origins import ORIGINS, TARGETS

if TYPE_CHECKING:
    from zoo.model.spec import Weights
    from zoo.weights.pull import Pulled, Report


@click.command("import")
@click.argument("model")
@click.argument("file", type=PATH)
@click.option("--from", "origin", type=click.Choice(list(ORIGINS)), required=True, help="Whose weights they are.")
@click.option("-o", "--out", type=PATH, help="Checkpoint to write  [default: MODEL-ORIGIN.safetensors]")
@click.option("--num-classes", type=click.IntRange(2), help="Another number than the file's: a new head.")
@click.option("--classes", type=PATH, help="Class names, one a line.")
@json_option
def import_file(
    model: str,
    file: Path,
    origin: str,
    out: Path | None,
    num_classes: int | None,
    classes: Path | None,
    as_json: bool,
) -> None:
    """Turn another project's weights FILE into a checkpoint of MODEL.

    FILE is a .pth, .safetensors, Keras' .h5 or .keras, or a TensorFlow checkpoint. MODEL may be the id of published
    weights (s.timm-in1k) to choose their preprocessing for a file that is not theirs.
    """
    from zoo.model.variants import find_variant
    from zoo.weights.bring_in import import_weights, read_class_names
    from zoo.weights.checkpoint import save_checkpoint
    from zoo.weights.table import find_weights, is_weights_id

    row = find_weights(model) if is_weights_id(model) else None
    variant = find_variant(row.variant if row else model)
    target = out or Path(f"{variant.id}-{origin}.safetensors")
    if target.suffix != ".safetensors":
        raise click.BadParameter(f"{target} does not end in .safetensors.", param_hint="--out")
    names = read_class_names(classes) if classes else None
    imported = import_weights(variant, ORIGINS[origin], file, num_classes=num_classes, classes=names, row=row)
    save_checkpoint(target, imported.model.state_dict(), imported.card)
    _remark(imported.notes)
    if as_json:
        card = imported.card
        result = {
            "checkpoint": str(target),
            "model": variant.id,
            "num_classes": len(card.classes),
            "head": card.provenance["head"],
            "padding": card.padding,
            "preprocessing": card.preprocessing.to_dict(),
            "weights": card.provenance["weights"],
            "notes": list(imported.notes),
        }
        click.echo(json.dumps(result, indent=2))
    else:
        click.echo(target)


@click.command("convert")
@click.argument("model")
@click.option("--to", "target", type=click.Choice(TARGETS), required=True, help="Whose keys to give them.")
@click.option("-o", "--out", type=PATH, required=True, help="File to write: .pth or .safetensors.")
@json_option
def convert(model: str, target: str, out: Path, as_json: bool) -> None:
    """Write MODEL's weights, bit for bit, as another project's code loads them.

    MODEL is a checkpoint, or an id with a run or published weights. The line of Python that makes the network for
    them is printed.
    """
    from zoo.weights.convert import to_origin
    from zoo.weights.formats.foreign import write_foreign
    from zoo.weights.resolve import load_model

    network, card, _ = load_model(model)
    outgoing = to_origin(network, card, ORIGINS[target])
    write_foreign(out, outgoing.tensors)
    _remark(outgoing.notes)
    if as_json:
        result = {
            "file": str(out),
            "constructor": outgoing.constructor,
            "preprocessing": card.preprocessing.to_dict(),
            "classes": list(card.classes),
            "notes": list(outgoing.notes),
        }
        click.echo(json.dumps(result, indent=2))
    else:
        click.echo(out)
        click.echo(outgoing.constructor)


@click.command("pull")
@click.argument("model")
@json_option
def pull(model: str, as_json: bool) -> None:
    """Fetch published weights: MODEL's most accurate ones, or those of an id such as s.timm-in1k.

    They are kept under ZOO_CACHE (~/.cache/zoo). An interrupted download goes on with the same command.
    """
    from zoo.weights.table import find_weights

    row = find_weights(model)
    pulled = _pull(row)
    if as_json:
        result = {
            "weights": row.id,
            "file": str(pulled.path),
            "sha256": pulled.sha256,
            "fetched": pulled.fetched,
            "licence": row.licence,
            "top1": row.accuracy.top1,
            "source": row.accuracy.source,
            "preprocessing": row.preprocessing.to_dict(),
        }
        click.echo(json.dumps(result, indent=2))
        return
    how = "fetched" if pulled.fetched else "already here"
    _remark(
        (
            f"{row.id}: {how}, {row.licence}, {100 * row.accuracy.top1:.1f} % top-1 ({row.accuracy.source}).",
            f"`zoo predict {row.id} photo.jpg` and `zoo export {row.id}` use it.",
        )
    )
    click.echo(pulled.path)


def _pull(row: Weights) -> Pulled:
    """Pull with a progress bar where somebody watches."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from zoo.console import log_console
    from zoo.weights.pull import pull as fetch

    console = log_console()
    columns = (TextColumn(row.file), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(row.file, total=None)
        report: Report = lambda done, total: progress.update(task, completed=done, total=total)  # noqa: E731
        return fetch(row, report)


def _remark(notes: tuple[str, ...]) -> None:
    from rich.markup import escape

    from zoo.console import log_console

    console = log_console()
    for note in notes:
        console.print(escape(note))
