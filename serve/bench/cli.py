"""Owns the commands `zoo bench latency`, `stages` and `report`: parse, call one function, print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from zoo.console import log_console, results_console
from zoo.options import RESULTS, Finite, device_option, json_option, results_option, threads_option

if TYPE_CHECKING:
    from serve.bench.measure.stage_timing import Precision
    from zoo.machine import Device
    from zoo.results import Result


_warmup = click.option(
    "--warmup-ms",
    type=Finite(0),
    default=200.0,
    show_default=True,
    help="Untimed calls before the first round.",
)
_rounds = click.option(
    "--rounds", type=click.IntRange(3), default=5, show_default=True, help="Visits to each thing compared, A B A B…"
)


@click.command()
@click.argument("artifacts", nargs=-1, required=True, metavar="ARTIFACT...")
@click.option(
    "--batch-size", "batch_sizes", type=click.IntRange(1), multiple=True, help="Repeatable.  [default: 1 and 8]"
)
@click.option(
    "--duration-s",
    type=Finite(0, min_open=True),
    default=3.0,
    show_default=True,
    help="Of each artifact at each batch size, in all rounds together.",
)
@_warmup
@_rounds
@device_option
@threads_option
@results_option
@json_option
def latency(
    artifacts: tuple[str, ...],
    batch_sizes: tuple[int, ...],
    duration_s: float,
    warmup_ms: float,
    rounds: int,
    device: str,
    threads: int | None,
    out: Path,
    as_json: bool,
) -> None:
    """Latency percentiles and throughput of checkpoints, .onnx and .plan files, on real pictures.

    Several artifacts are timed in turn and compared with the first. Answers are checked before anything is timed.

    \b
    zoo bench latency s.onnx
    zoo bench latency s.onnx s.plan --batch-size 1 --batch-size 32
    """
    from serve.bench.measure.runs import bench_latency
    from serve.bench.measure.timing import Schedule
    from serve.bench.report.tables import latency_tables
    from zoo.files import check_folder

    check_folder(out)
    result = bench_latency(
        artifacts,
        batch_sizes=batch_sizes,
        device=cast("Device", device),
        threads=threads,
        schedule=Schedule(warmup_ms=warmup_ms, duration_ms=duration_s * 1000, rounds=rounds),
        say=log_console().print,
    )
    _keep(result, out, as_json, latency_tables)


@click.command()
@click.argument("model")
@click.option("--image-size", type=click.IntRange(8, 4096), help="Side of the pictures, px.  [default: the model's]")
@click.option("--batch-size", type=click.IntRange(1), default=1, show_default=True, help="Pictures at once.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "tf32", "fp16", "bf16"]),
    default="fp32",
    show_default=True,
    help="tf32 needs a GPU.",
)
@click.option(
    "--duration-s",
    type=Finite(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Of each form of each stage, in all rounds together.",
)
@_warmup
@_rounds
@device_option
@threads_option
@results_option
@json_option
def stages(
    model: str,
    image_size: int | None,
    batch_size: int,
    precision: str,
    duration_s: float,
    warmup_ms: float,
    rounds: int,
    device: str,
    threads: int | None,
    out: Path,
    as_json: bool,
) -> None:
    """Time every stage of MODEL built as MBConv and as Fused-MBConv, and say who wins where.

    Each stage keeps its own channels, map size, kernel, stride, expand ratio and number of blocks. Needs no weights.

    \b
    zoo bench stages s
    zoo bench stages s --precision fp16 --batch-size 32 --device cuda
    """
    from serve.bench.measure.runs import bench_stages
    from serve.bench.measure.timing import Schedule
    from serve.bench.report.tables import stages_tables
    from zoo.files import check_folder

    check_folder(out)
    console = log_console()
    result = bench_stages(
        model,
        image_size=image_size,
        batch_size=batch_size,
        device=cast("Device", device),
        precision=cast("Precision", precision),
        threads=threads,
        schedule=Schedule(warmup_ms=warmup_ms, duration_ms=duration_s * 1000, rounds=rounds),
        on_row=lambda row: console.print(f"stage {row.index}: {row.verdict}"),
    )
    _keep(result, out, as_json, stages_tables)


@click.command()
@click.argument("results", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE|FOLDER]...")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=RESULTS / "report.html",
    show_default=True,
    help="The page; its figures are written beside it as .json.",
)
@json_option
def report(results: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Make one page of every result in benchmarks/, or of the files and folders named.

    The page needs nothing beside it: no network, no scripts; it prints, and it follows the reader's light or dark.
    """
    from serve.bench.report.report import write_report

    written = write_report(results or (RESULTS,), out)
    if as_json:
        click.echo(json.dumps(written, indent=2, ensure_ascii=False))
        return
    for sentences in written["headlines"].values():
        for sentence in sentences:
            click.echo(f"• {sentence}")
    click.echo(f"\n{written['report']}\n{written['json']}")


def _keep(result: Result, folder: Path, as_json: bool, tables: Any) -> None:
    """Write the result, then print it: the JSON alone, or tables with the file's name after them."""
    from zoo.results import write_result

    path = write_result(folder, result)
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=2, ensure_ascii=False))
        return
    console = results_console()
    for table in tables(result):
        console.print(table)
    log_console().print(f"Wrote {path}. `zoo bench report {folder}` makes a page of it.")
