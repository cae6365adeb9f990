"""Owns the commands `zoo bench latency`, `compare` and `report`: parse, call one function, print."""

from __future__ import annotations

import click

from serve.bench.options import CheckOptions, CompareOptions, FrontierOptions, LatencyOptions, ReportOptions
from zoo.console import log_console, print_json
from zoo.options import RESULTS, json_option, takes


@click.command()
@takes(LatencyOptions)
@json_option
def latency(options: LatencyOptions, as_json: bool) -> None:
    """Latency percentiles and throughput of checkpoints, .onnx and .plan files, on real pictures.

    Several artifacts are timed in turn and compared with the first. Answers are checked before anything is timed. A
    round in which the machine was taken away is measured again; a run that never was quiet says so.

    \b
    zoo bench latency s.onnx
    zoo bench latency s.onnx s.plan --batch-size 1 --batch-size 32
    zoo bench latency s.onnx --scenario server --rate 50 --rate 100
    zoo bench latency s --image-size 224 --image-size 384
    """
    from rich.text import Text

    from serve.bench.measure.latency_run import bench_latency
    from serve.bench.report.report import keep_result
    from zoo.files import check_folder

    check_folder(options.out)
    keep_result(
        bench_latency(options, say=lambda line: log_console().print(Text(line), soft_wrap=True)),
        options.out,
        as_json=as_json,
    )


@click.command()
@takes(CompareOptions)
@json_option
def compare(options: CompareOptions, as_json: bool) -> None:
    """Say what became slower from one result to another of the same thing; exit code 3 where that is beyond tolerance.

    The ratio of every timing comes with its 95 % interval; slower is what lies beyond the tolerance with all of it.

    \b
    zoo bench compare main/latency-s.json latency-s.json --tolerance 5
    """
    from serve.bench.report.comparison import check_comparison, compare_results, comparison_lines
    from zoo.console import results_console

    compared = compare_results(options.before, options.after, options.tolerance)
    if as_json:
        print_json(compared.to_dict())
    else:
        console = results_console()
        for line in comparison_lines(compared):
            console.print(line)
    check_comparison(compared, strict=options.strict)


@click.command("zoo")
@takes(FrontierOptions)
@json_option
def bench_networks(options: FrontierOptions, as_json: bool) -> None:
    """Time networks of the zoo in turn, and put published accuracy over measured time: which ones are worth their time?

    Without MODEL all of V2, V1, Lite and ResNet that have a published accuracy. Needs no weights.

    \b
    zoo bench zoo
    zoo bench zoo b0 b1 v1-b1 v1-b2 resnet50 --threads 1
    """
    from rich.text import Text

    from serve.bench.measure.frontier import bench_zoo
    from serve.bench.report.report import keep_result
    from zoo.files import check_folder

    check_folder(options.out)
    result = bench_zoo(options, say=lambda line: log_console().print(Text(line), soft_wrap=True))
    keep_result(result, options.out, as_json=as_json)


@click.command()
@takes(CheckOptions)
@json_option
def check(options: CheckOptions, as_json: bool) -> None:
    """Check the harness itself on this machine: known times, Poisson arrivals, a plain loop, LoadGen, verdicts.

    The result is written after every run; stopped, the same command goes on. Exit code 3 where a claim fails although
    the machine was quiet.
    """
    from rich.text import Text

    from serve.bench.measure.check_run import CheckData, bench_check, failed_claims
    from serve.bench.report.report import keep_result
    from zoo.errors import VerdictError
    from zoo.files import check_folder

    check_folder(options.out)
    result = bench_check(options, say=lambda line: log_console().print(Text(line), soft_wrap=True))
    keep_result(result, options.out, as_json=as_json)
    failed = failed_claims(CheckData.from_dict(result.data))
    if failed:
        raise VerdictError(
            f"The harness is not what it claims to be here: {', '.join(claim.name for claim in failed)}.",
            "Is the clock virtual, or are there fewer cores than threads? `zoo doctor` says what this machine is.",
        )


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
    click.echo("\n" + "\n".join(written[name] for name in ("report", "json", "markdown", "csv")))
