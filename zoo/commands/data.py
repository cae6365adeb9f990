"""Owns the commands `zoo data check`, `pack` and `index`: parse, call one function, print."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zoo.options import FOLDER, json_option, seed_option

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from zoo.data.check import Report

# How many names of a long list a terminal gets; --json has all.
SHOWN = 10


@click.command("check")
@click.argument("data")
@seed_option("Splits a folder without train/ and val/, as in training.")
@click.option("--workers", type=click.IntRange(1), help="Pictures decoded at once  [default: one a core]")
@json_option
def check_data(data: str, seed: int, workers: int | None, as_json: bool) -> None:
    """Look at every picture of DATA: broken files, duplicates, class balance, sizes.

    DATA is what `zoo train --data` takes. The exit code is 0 unless nothing can be trained on it; findings are for
    you to judge.
    """
    from zoo.data.check import check
    from zoo.data.open import open_splits
    from zoo.errors import DataError

    train, val = open_splits(data, seed=seed)
    with _progress("Checking", len(train) + len(val)) as advance:
        report = check({"train": train, "val": val}, workers=workers or os.cpu_count() or 1, on_picture=advance)
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    else:
        _print_report(report)
    if not any(row["train"] for row in report.classes) or not any(row["val"] for row in report.classes):
        raise DataError("A split has not one readable picture.", "The files are damaged, or not pictures.")


@click.command("pack")
@click.argument("data")
@click.option("-o", "--out", type=FOLDER, required=True, help="New folder for the shards.")
@click.option("--model", default="s", show_default=True, help="Whose sizes decide how far pictures are reduced.")
@click.option("--size", type=click.IntRange(16), help="Pixels of the shorter side  [default: what MODEL can use]")
@click.option(
    "--quality", type=click.IntRange(1, 100), default=90, show_default=True, help="JPEG quality of the reduced."
)
@click.option("--shard-mb", type=click.IntRange(1), default=256, show_default=True, help="Megabytes a shard, about.")
@seed_option("Decides the order, and the split of a folder without one.")
@click.option("--workers", type=click.IntRange(1), help="Pictures reduced at once  [default: one a core]")
@json_option
def pack_data(
    data: str,
    out: Path,
    model: str,
    size: int | None,
    quality: int,
    shard_mb: int,
    seed: int,
    workers: int | None,
    as_json: bool,
) -> None:
    """Pack DATA into shards, its pictures reduced to what training can use.

    The shards are WebDataset's tar files; `zoo train --data OUT` reads them. Small JPEGs are copied as they are.
    """
    from zoo.data.open import open_splits
    from zoo.data.pack import pack, pack_size
    from zoo.weights.resolve import find_model_variant

    wanted = size or pack_size(find_model_variant(model))
    train, val = open_splits(data, seed=seed)
    with _progress(f"Packing at {wanted} px", len(train) + len(val)) as advance:
        done = pack(
            {"train": train, "val": val},
            out,
            size=wanted,
            quality=quality,
            seed=seed,
            workers=workers or os.cpu_count() or 1,
            shard_bytes=shard_mb * 1_000_000,
            on_picture=lambda _: advance(),
        )
    if as_json:
        splits = {split: asdict(result) | {"broken": list(result.broken)} for split, result in done.items()}
        click.echo(json.dumps({"shards": str(out), "size": wanted, "quality": quality, "splits": splits}))
        return
    for split, result in done.items():
        click.echo(
            f"{split}: {result.pictures:,} pictures, {result.reduced:,} of them reduced to {wanted} px, "
            f"{result.source_bytes / 1e6:,.1f} → {result.packed_bytes / 1e6:,.1f} MB"
            + (f", {len(result.broken)} broken left out" if result.broken else "")
        )
        for problem in result.broken[:SHOWN]:
            click.echo(f"  {problem}", err=True)
    click.echo(out)


@click.command("index")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option(
    "--classes",
    "classes_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Names of the classes, one a line  [default: FOLDER/classes.txt, else the numbers]",
)
@json_option
def index_data(folder: Path, classes_file: Path | None, as_json: bool) -> None:
    """Make WebDataset's tar files in FOLDER readable: write shards.json and an index beside them.

    Samples are KEY.jpg (jpeg, png, webp …) and KEY.cls with the number of the class. A word of a tar file's path says
    its split: train, or val, valid, validation, test. Without the latter a fifth is held out. The tar files stay as
    they are; `zoo train --data FOLDER` reads them.
    """
    from zoo.data.index import find_tars, index_folder

    with _progress("Indexing", len(find_tars(folder))) as advance:
        found = index_folder(folder, classes_file=classes_file, on_shard=advance)
    if as_json:
        splits = {split: {"pictures": count, "shards": found.shards[split]} for split, count in found.pictures.items()}
        said = {"shards": str(folder), "classes": len(found.classes), "splits": splits, "held_out": found.held_out}
        click.echo(json.dumps(said | {"left_out": list(found.left_out)}))
        return
    for split, count in found.pictures.items():
        where = "a fifth of the same files" if found.held_out and split == "val" else f"{found.shards[split]} tar files"
        click.echo(f"{split}: {count:,} pictures of {len(found.classes)} classes, {where}")
    for name in found.left_out[:SHOWN]:
        click.echo(f"  left out: {name}", err=True)
    click.echo(folder)


class _Advance:
    """One more on a progress bar: a picture or a file."""

    def __init__(self, progress: Progress, total: int, words: str) -> None:
        self.progress = progress
        self.task = progress.add_task(words, total=total)

    def __call__(self) -> None:
        self.progress.advance(self.task)


@contextmanager
def _progress(words: str, total: int) -> Iterator[_Advance]:
    """A bar on stderr while the work goes on; nothing where stderr is not a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from zoo.console import log_console

    console = log_console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield _Advance(progress, total, words)


def _print_report(report: Report) -> None:
    from rich.markup import escape

    from zoo.console import results_console

    console = results_console()
    console.print(_class_table(report))
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
        for group in groups[:SHOWN]:
            console.print(f"  {escape('  =  '.join(group))}", soft_wrap=True)
        if len(groups) > SHOWN:
            console.print(f"  … and {len(groups) - SHOWN} more; --json has all.")


def _class_table(report: Report) -> Table:
    from rich.table import Table

    table = Table("class", box=None, pad_edge=False, header_style="bold")
    for column in (*report.splits, "share"):
        table.add_column(column, justify="right")
    total = sum(row[split] for row in report.classes for split in report.splits) or 1
    for row in report.classes:
        counts = [row[split] for split in report.splits]
        table.add_row(row["class"], *(f"{count:,}" for count in counts), f"{sum(counts) / total:.1%}")
    return table
