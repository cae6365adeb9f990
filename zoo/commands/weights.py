"""Owns the commands that move weights: import, convert, pull."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import click

from zoo.options import PATH, Arg, Opt, json_option, takes
from zoo.rows import Row, Within
from zoo.weights.origins import ORIGINS, TARGETS, OriginId

if TYPE_CHECKING:
    from zoo.weights.pull import Pulled
    from zoo.weights.spec import Weights


@dataclass(frozen=True, kw_only=True)
class ImportOptions(Row):
    """What `zoo import` can be told."""

    model: Annotated[str, Arg("MODEL")]
    file: Annotated[Path, Arg("FILE")]
    origin: Annotated[OriginId, Opt("Whose weights they are.", flags=("--from",))]
    out: Annotated[
        Path | None, Opt("Checkpoint to write  [default: MODEL-ORIGIN.safetensors]", flags=("-o", "--out"))
    ] = None
    num_classes: Annotated[Annotated[int, Within(2)] | None, Opt("Another number than the file's: a new head.")] = None
    classes: Annotated[Path | None, Opt("Class names, one a line.")] = None
    ema: Annotated[
        Literal["auto", "yes", "no"],
        Opt("Averaged weights of a training script's file: taken if there are any (auto), or insisted on or declined."),
    ] = "auto"


@click.command("import")
@takes(ImportOptions)
@json_option
def import_file(options: ImportOptions, as_json: bool) -> None:
    """Turn another project's weights FILE into a checkpoint of MODEL.

    FILE is a .pth, .safetensors, Keras' .h5 or .keras, or a TensorFlow checkpoint. MODEL may be the id of published
    weights (s.timm-in1k): a file that is not theirs then gets their preprocessing.
    """
    from zoo.console import print_json
    from zoo.files import check_folder
    from zoo.weights.bring_in import import_weights, read_class_names
    from zoo.weights.checkpoint import save_checkpoint
    from zoo.weights.resolve import find_listed
    from zoo.weights.table import find_weights, is_weights_id

    row = find_weights(options.model) if is_weights_id(options.model) else None
    variant = find_listed(row.variant if row else options.model)
    target = options.out or Path(f"{variant.id}-{options.origin}.safetensors")
    if target.suffix != ".safetensors":
        raise click.BadParameter(f"{target} does not end in .safetensors.", param_hint="--out")
    check_folder(target.parent)
    names = read_class_names(options.classes) if options.classes else None
    imported = import_weights(
        variant,
        ORIGINS[options.origin],
        options.file,
        ema={"auto": None, "yes": True, "no": False}[options.ema],
        num_classes=options.num_classes,
        classes=names,
        row=row,
    )
    card = imported.card
    save_checkpoint(target, imported.model.state_dict(), card)
    _remark(*imported.notes)
    if not as_json:
        click.echo(target)
        return
    result = {
        "checkpoint": str(target),
        "model": variant.id,
        "num_classes": len(card.classes),
        "head": card.provenance["head"],
        "padding": card.padding,
        "preprocessing": card.preprocessing.to_dict(),
        "weights": card.provenance["weights"],
        "notes": imported.notes,
    }
    print_json(result)


@click.command("convert")
@click.argument("model")
@click.option("--to", "target", type=click.Choice(TARGETS), required=True, help="Whose keys to give them.")
@click.option("-o", "--out", type=PATH, required=True, help="File to write: .pth or .safetensors.")
@json_option
def convert(model: str, target: OriginId, out: Path, as_json: bool) -> None:
    """Write MODEL's weights, bit for bit, as another project's code loads them.

    MODEL is a checkpoint, or an id with a run or published weights. The line of Python that makes the network for
    them is printed.
    """
    from zoo.console import print_json
    from zoo.files import check_folder
    from zoo.weights.convert import to_origin
    from zoo.weights.formats.foreign import write_foreign
    from zoo.weights.resolve import load_model

    check_folder(out.parent)
    network, card, _ = load_model(model)
    outgoing = to_origin(network, card, ORIGINS[target])
    write_foreign(out, outgoing.tensors)
    _remark(*outgoing.notes)
    if not as_json:
        click.echo(out)
        click.echo(outgoing.constructor)
        return
    result = {
        "file": str(out),
        "constructor": outgoing.constructor,
        "preprocessing": card.preprocessing.to_dict(),
        "classes": card.classes,
        "notes": outgoing.notes,
    }
    print_json(result)


@click.command("pull")
@click.argument("model")
@json_option
def pull(model: str, as_json: bool) -> None:
    """Fetch published weights: MODEL's most accurate ones, or those of an id such as s.timm-in1k.

    They are kept under ZOO_CACHE (~/.cache/zoo). After an interruption the same command continues the download.
    """
    from zoo.console import print_json
    from zoo.weights.resolve import find_published

    row = find_published(model)
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
        print_json(result)
        return
    how = "fetched" if pulled.fetched else "already here"
    _remark(
        f"{row.id}: {how}, {row.licence}, {100 * row.accuracy.top1:.1f} % top-1 ({row.accuracy.source}).",
        f"`zoo predict {row.id} photo.jpg` and `zoo export {row.id}` use it.",
    )
    click.echo(pulled.path)


def _pull(row: Weights) -> Pulled:
    """Pull, with a progress bar where somebody watches."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from zoo.console import log_console
    from zoo.weights.pull import pull as fetch

    console = log_console()
    columns = (TextColumn(row.file), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(row.file, total=None)
        return fetch(row, lambda done, total: progress.update(task, completed=done, total=total))


def _remark(*notes: str) -> None:
    from rich.markup import escape

    from zoo.console import log_console

    console = log_console()
    for note in notes:
        console.print(escape(note), soft_wrap=True)
