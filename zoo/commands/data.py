"""Owns the commands `zoo data check`, `pack` and `index`, and how they print what they found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from zoo.model.spec import RGB, Channels
from zoo.options import Arg, GroupBy, LocalPath, Opt, Seed, json_option, takes
from zoo.rows import Count, Row, Within

if TYPE_CHECKING:
    from rich.table import Table

    from zoo.data.check import Report

# A terminal gets this many names of a long list; --json has all.
NAMES_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class CheckOptions(Row):
    """What `zoo data check` can be told."""

    data: Annotated[str, Arg("DATA")]
    seed: Annotated[Seed | None, Opt("Splits a folder without train/ and val/, as in training.  [default: 0]")] = None
    group_by: GroupBy = None
    channels: Annotated[Channels, Opt("Planes of a picture: 1 grey, 3 RGB, 4 RGBA.")] = RGB
    workers: Annotated[Count | None, Opt("Pictures decoded at once  [default: one a core]")] = None


@click.command("check")
@takes(CheckOptions)
@json_option
def check_data(options: CheckOptions, as_json: bool) -> None:
    """Look at every picture of DATA: broken files, duplicates, class balance, sizes.

    DATA is what `zoo train --data` takes. You judge the findings: the exit code is 0 unless nothing can be trained on
    DATA.
    """
    from zoo.console import print_json
    from zoo.data.check import check
    from zoo.data.open import is_held_out, open_splits
    from zoo.errors import DataError
    from zoo.machine import usable_processors

    train, val = open_splits(options.data, seed=options.seed or 0, group_by=options.group_by)
    if options.seed is not None and not is_held_out(options.data):
        raise DataError(f"--seed has no effect: {options.data} is divided already.", "Leave it out.")
    with _progress("Checking", len(train) + len(val)) as advance:
        workers = options.workers or usable_processors()
        splits = {"train": train, "val": val}
        report = check(splits, workers=workers, on_picture=advance, channels=options.channels)
    if as_json:
        print_json(report.to_dict())
    else:
        _print_report(report)
    if not any(row["train"] for row in report.classes) or not any(row["val"] for row in report.classes):
        raise DataError("A split has not one readable picture.", "The files are damaged, or not pictures.")


@dataclass(frozen=True, kw_only=True)
class PackOptions(Row):
    """What `zoo data pack` can be told."""

    data: Annotated[str, Arg("DATA")]
    out: Annotated[Path, Opt("New folder for the shards.", flags=("-o", "--out"), metavar="DIRECTORY")]
    model: Annotated[str, Opt("Whose sizes decide how far pictures are reduced.", unless="size")] = "s"
    size: Annotated[
        Annotated[int, Within(16)] | None, Opt("Pixels of the shorter side  [default: what MODEL can use]")
    ] = None
    quality: Annotated[int, Within(1, 100), Opt("JPEG quality of the reduced.")] = 90
    shard_mb: Annotated[Count, Opt("Megabytes a shard, about.")] = 256
    seed: Annotated[Seed, Opt("Decides the order, and the split of a folder without one.")] = 0
    group_by: GroupBy = None
    workers: Annotated[Count | None, Opt("Pictures reduced at once  [default: one a core]")] = None


@click.command("pack")
@takes(PackOptions)
@json_option
def pack_data(options: PackOptions, as_json: bool) -> None:
    """Pack DATA into shards, its pictures reduced to what training can use.

    The shards are WebDataset's tar files; `zoo train --data OUT` reads them. Small JPEGs are copied as they are.
    """
    from zoo.console import print_json
    from zoo.data.open import open_splits
    from zoo.data.pack import pack, pack_size
    from zoo.machine import usable_processors
    from zoo.weights.resolve import find_model_variant

    size = options.size or pack_size(find_model_variant(options.model))
    train, val = open_splits(options.data, seed=options.seed, group_by=options.group_by)
    with _progress(f"Packing at {size} px", len(train) + len(val)) as advance:
        done = pack(
            {"train": train, "val": val},
            options.out,
            size=size,
            quality=options.quality,
            seed=options.seed,
            workers=options.workers or usable_processors(),
            shard_bytes=options.shard_mb * 1_000_000,
            on_picture=advance,
        )
    if as_json:
        splits = {split: packed.to_dict() for split, packed in done.items()}
        result = {"shards": str(options.out), "size": size, "quality": options.quality, "splits": splits}
        print_json(result)
        return
    for split, packed in done.items():
        click.echo(
            f"{split}: {packed.pictures:,} pictures, {packed.reduced:,} of them reduced to {size} px, "
            f"{packed.source_bytes / 1e6:,.1f} → {packed.packed_bytes / 1e6:,.1f} MB"
            + (f", {len(packed.broken)} broken left out" if packed.broken else "")
        )
        for problem in packed.broken[:NAMES_SHOWN]:
            click.echo(f"  {problem}", err=True)
    click.echo(options.out)


@click.command("index")
@click.argument("folder", type=LocalPath(path_type=Path, file_okay=False, exists=True))
@click.option(
    "--classes",
    "classes_file",
    type=LocalPath(path_type=Path, dir_okay=False),
    help="Names of the classes, one a line  [default: FOLDER/classes.txt, else the numbers]",
)
@json_option
def index_data(folder: Path, classes_file: Path | None, as_json: bool) -> None:
    """Make WebDataset's tar files in FOLDER readable: write shards.json and an index beside them.

    Samples are KEY.jpg (jpeg, png, webp …) and KEY.cls with the number of the class. A word of a tar file's path names
    its split: train, or val, valid, validation, test. Where none names the second, a fifth is held out. The tar files
    stay as they are; `zoo train --data FOLDER` reads them.
    """
    from zoo.console import print_json
    from zoo.data.index import find_tars, index_folder
    from zoo.visible import visible

    with _progress("Indexing", len(find_tars(folder))) as advance:
        found = index_folder(folder, classes_file=classes_file, on_shard=advance)
    if as_json:
        splits = {split: {"pictures": count, "shards": found.shards[split]} for split, count in found.pictures.items()}
        result = {"shards": str(folder), "classes": len(found.classes), "splits": splits, "held_out": found.held_out}
        print_json(result | {"left_out": found.left_out})
        return
    for split, count in found.pictures.items():
        where = "a fifth of the same files" if found.held_out and split == "val" else f"{found.shards[split]} tar files"
        click.echo(f"{split}: {count:,} pictures of {len(found.classes)} classes, {where}")
    for name in found.left_out[:NAMES_SHOWN]:
        click.echo(f"  left out: {visible(name)}", err=True)
    click.echo(folder)


@contextmanager
def _progress(words: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr, where that is a terminal, while the work goes on. Call what is yielded after each step of it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from zoo.console import log_console

    console = log_console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(words, total=total)
        yield lambda: progress.advance(task)


def _print_report(report: Report) -> None:
    from rich.markup import escape

    from zoo.console import results_console

    console = results_console()
    console.print(_class_table(report))
    for remark in report.remarks:
        console.print(escape(remark), soft_wrap=True)
    sizes = ", ".join(
        f"{key.replace('_', ' ')} {row['min']}–{row['max']} px (median {row['median']})"
        for key, row in report.sizes.items()
    )
    console.print(
        f"Sizes: {sizes or 'none'}. The largest class has {report.imbalance:.3g} times the smallest.", soft_wrap=True
    )
    for title, groups in (
        ("Duplicates across the splits", report.duplicates_across),
        ("Duplicates within a split", report.duplicates_within),
        ("The same picture in different classes", report.conflicts),
        ("Broken", tuple((problem,) for problem in report.broken)),
    ):
        console.print(f"{title}: [{'yellow' if groups else 'green'}]{len(groups)}[/]")
        for group in groups[:NAMES_SHOWN]:
            console.print(f"  {escape('  =  '.join(group))}", soft_wrap=True)
        if len(groups) > NAMES_SHOWN:
            console.print(f"  … and {len(groups) - NAMES_SHOWN} more; --json has all.")


def _class_table(report: Report) -> Table:
    from rich.markup import escape

    from zoo.console import FittingTable

    table = FittingTable("class")
    for column in (*report.splits, "share"):
        table.add_column(column, justify="right")
    total = sum(report.splits.values()) - len(report.broken) or 1
    for row in report.classes:
        counts = [row[split] for split in report.splits]
        table.add_row(escape(row["class"]), *(f"{count:,}" for count in counts), f"{sum(counts) / total:.1%}")
    return table
