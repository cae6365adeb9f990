"""Owns the commands `zoo bench latency`, `stages`, `serve` and `report`: parse, call one function, print."""

from __future__ import annotations

import click

from serve.bench.options import LatencyOptions, ReportOptions, ServeBenchOptions, StagesOptions
from zoo.console import log_console, print_json
from zoo.options import RESULTS, json_option, takes


@click.command()
@takes(LatencyOptions)
@json_option
def latency(options: LatencyOptions, as_json: bool) -> None:
    """Latency percentiles and throughput of checkpoints, .onnx and .plan files, on real pictures.

    Several artifacts are timed in turn and compared with the first. Answers are checked before anything is timed.

    \b
    zoo bench latency s.onnx
    zoo bench latency s.onnx s.plan --batch-size 1 --batch-size 32
    """
    from rich.text import Text

    from serve.bench.measure.runs import bench_latency
    from serve.bench.report.report import keep_result
    from zoo.files import check_folder

    check_folder(options.out)
    keep_result(
        bench_latency(options, say=lambda line: log_console().print(Text(line), soft_wrap=True)),
        options.out,
        as_json=as_json,
    )


@click.command()
@takes(StagesOptions)
@json_option
def stages(options: StagesOptions, as_json: bool) -> None:
    """Time every stage of MODEL built as MBConv and as Fused-MBConv, and say who wins where.

    Each stage keeps its own channels, map size, kernel, stride, expand ratio and number of blocks. Needs no weights.

    \b
    zoo bench stages s
    zoo bench stages s --precision fp16 --batch-size 32 --device cuda
    """
    from serve.bench.measure.runs import bench_stages
    from serve.bench.report.report import keep_result
    from zoo.files import check_folder

    check_folder(options.out)
    console = log_console()
    result = bench_stages(options, on_row=lambda row: console.print(f"stage {row.index}: {row.verdict}"))
    keep_result(result, options.out, as_json=as_json)


@click.command()
@takes(ServeBenchOptions)
@json_option
def serve(options: ServeBenchOptions, as_json: bool) -> None:
    """What running servers do under load: closed loops, open loops up to their best rate, and overload.

    Any server that takes a picture by POST can be measured: `zoo serve` and others.

    \b
    zoo bench serve http://127.0.0.1:8080
    zoo bench serve zoo=http://127.0.0.1:8080 other=http://127.0.0.1:8000/predict
    """
    from serve.bench.measure.serving import bench_serve
    from serve.bench.report.report import keep_result
    from zoo.files import check_folder

    check_folder(options.out)
    keep_result(bench_serve(options, say=lambda line: log_console().print(line)), options.out, as_json=as_json)


@click.command()
@takes(ReportOptions)
@json_option
def report(options: ReportOptions, as_json: bool) -> None:
    """Make one page of every result in benchmarks/, or of the files and folders named.

    The page needs nothing beside it: no network, no scripts; it prints, and it follows the reader's light or dark.
    """
    from serve.bench.report.report import write_report

    written = write_report(options.results or (RESULTS,), options.out)
    if as_json:
        print_json(written)
        return
    for sentences in written["headlines"].values():
        for sentence in sentences:
            click.echo(f"• {sentence}")
    click.echo(f"\n{written['report']}\n{written['json']}")
