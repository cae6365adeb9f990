"""Owns the commands `zoo bench stages`, `fusion` and `latency-table`: parse, call one function, print."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from serve.bench.stage_options import FusionOptions, LatencyTableOptions, StagesOptions
from zoo.console import log_console, print_json
from zoo.options import json_option, takes
from zoo.results import Result


@click.command()
@takes(StagesOptions)
@json_option
def stages(options: StagesOptions, as_json: bool) -> None:
    """Time every stage of MODEL as MBConv and as Fused-MBConv in the engine that ships, and say who wins where.

    Each stage keeps its own channels, map size, kernel, stride, expand ratio and number of blocks. It is exported,
    compared with PyTorch, and timed by itself, by its layers in the whole network, and by exchanging it there. Needs no
    weights. Each engine, precision and choice of squeeze-and-excitation gives a result of its own.

    \b
    zoo bench stages s
    zoo bench stages s --on ort-cpu,openvino --by isolated
    zoo bench stages b0 --map 3 --threads 1
    zoo bench stages s --on tensorrt --precision fp16 --batch-size 32
    """
    from serve.bench.measure.stage_runs import bench_stages
    from zoo.files import check_folder

    check_folder(options.out)
    _keep_each(bench_stages(options, say=_say), options.out, as_json)


@click.command()
@takes(FusionOptions)
@json_option
def fusion(options: FusionOptions, as_json: bool) -> None:
    """Time the paper's Table 3: EfficientNet-B4 with no, three, five and seven stages as Fused-MBConv.

    Inference in the engine that ships, and training steps in PyTorch, beside the paper's V100 and TPUv3. The networks
    take turns, so their ratios stand where the machine's pace drifts.

    \b
    zoo bench fusion --image-size 224 --threads 1
    zoo bench fusion --on tensorrt --precision fp16 --batch-size 16 --no-training
    """
    from serve.bench.measure.stage_runs import bench_fusion
    from zoo.files import check_folder

    check_folder(options.out)
    _keep_each(bench_fusion(options, say=_say), options.out, as_json)


@click.command("latency-table")
@takes(LatencyTableOptions)
@json_option
def latency_table(options: LatencyTableOptions, as_json: bool) -> None:
    """Time every block that a network of SPACE can have in the engine that ships, and add them up.

    Stem, blocks and head are exported, compared with PyTorch and timed one by one, what is around them taken off. The
    sums are held against whole networks, and the result says how far they are off. `zoo search --latency-table FILE`
    sums the table for every candidate. The result is written after every few parts; stopped, the same command goes on.

    \b
    zoo bench latency-table --on ort-cpu --threads 1
    zoo bench latency-table --space my.toml --on tensorrt --precision fp16
    """
    from serve.bench.measure.latency_table import bench_latency_table
    from serve.bench.report.report import keep_result
    from zoo.files import check_folder

    check_folder(options.out)
    keep_result(bench_latency_table(options, say=_say), options.out, as_json=as_json)


def _say(line: str) -> None:
    from rich.text import Text

    log_console().print(Text(line), soft_wrap=True)


def _keep_each(results: Iterator[Result], out: Path, as_json: bool) -> None:
    """Keep every result as soon as it is there; JSON of several is a list."""
    from serve.bench.report.report import keep_result
    from zoo.results import write_result

    if not as_json:
        for result in results:
            keep_result(result, out)
        return
    kept: list[dict[str, object]] = []
    try:
        for result in results:
            kept.append(result.to_dict())
            write_result(out, result)
    finally:
        if kept:  # what took minutes to measure is printed though it cannot be written
            print_json(kept[0] if len(kept) == 1 else kept)
