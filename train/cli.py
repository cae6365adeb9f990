"""Owns the commands `zoo train`, `zoo compare` and `zoo bench train`: parse, call one function, print."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from train.options import BenchTrainOptions, CompareOptions, TrainOptions
from zoo.options import json_option, takes

if TYPE_CHECKING:
    from zoo.results import Result


@click.command()
@takes(TrainOptions)
@click.option("--plan", is_flag=True, help="Print the stages and what they cost; train nothing.")
@json_option
def train(options: TrainOptions, plan: bool, as_json: bool) -> None:
    """Train MODEL with progressive learning.

    An id trains from scratch; a checkpoint's path, a run folder or the id of published weights starts from those
    weights, with a new classifier if the classes differ.

    Image size, RandAugment, mixup and dropout rise together in stages. The run folder gets checkpoint.safetensors,
    metrics.jsonl, report.html (also while it trains), curves.svg, confusion.svg, predictions.csv and classes.csv.
    Ctrl-C and SIGTERM stop the run after it has saved where it is; --resume continues from there.
    """
    if plan:
        _plan(options, as_json=as_json)
        return
    from rich.markup import escape

    from train.folds.run import cross_validate
    from train.processes.distributed import find_world
    from train.processes.stopping import RunFinished, RunStopped
    from train.session import train_model
    from zoo.console import log_console, print_json

    is_first = find_world().is_first
    log = log_console()
    log.quiet = not is_first
    try:
        outcome = (
            train_model(options, console=log)
            if options.folds is None or options.fold
            else cross_validate(options, console=log)
        )
    except RunFinished as finished:
        log.print(
            escape(f"{finished} Without --auto-resume a new run begins, and this one is kept under another name.")
        )
        return
    except RunStopped as stopped:
        log.print(f"Stopped {stopped.where}. The same command with --resume continues from there.")
        raise click.exceptions.Exit(stopped.exit_code) from stopped
    if is_first and as_json:
        print_json(outcome.to_dict(), indent=None)
    elif is_first:
        click.echo(f"{outcome.summary}  {outcome.result_file}")


def _plan(options: TrainOptions, *, as_json: bool) -> None:
    """Print what a run would do, then how long it takes here: measured once, in seconds, and remembered."""
    from train.progressive.budget import seconds_of
    from train.progressive.known_paces import known_pace, pace_key, remember_pace
    from train.progressive.plan import one_fold, plan_as_json, plan_for_budget, plan_training, print_plan
    from zoo.console import log_console, print_json, results_console
    from zoo.wording import duration

    folds = options.folds if options.fold is None else None
    options = options if folds is None else one_fold(options)
    plan = replace(plan_training(options), folds=folds)
    if int(os.environ.get("RANK", 0)):
        return  # torchrun: the first process prints for all
    if not as_json and options.budget is None:
        print_plan(plan)
    key = pace_key(plan, options)
    pace = known_pace(key)
    if pace is None:
        from train.session import measure_pace_of

        log_console().print("Measuring a few steps …")
        pace = measure_pace_of(options)
        remember_pace(key, pace)
    if options.budget is not None:
        plan = plan_for_budget(plan, options, pace)
    seconds = seconds_of(plan.recipe, plan.amount, pace) * (plan.folds or 1)
    if as_json:
        print_json(plan_as_json(plan, seconds), indent=None)
        return
    if options.budget is not None:
        print_plan(plan)
    results_console().print(f"About {duration(seconds)} on this machine, validation included.")


@click.command()
@takes(CompareOptions)
@json_option
def compare(options: CompareOptions, as_json: bool) -> None:
    """Compare the answers of finished runs, picture by picture.

    A RUN is a run folder. Each is compared with the first: how many points better it is, with the 95 % interval, and
    McNemar's exact p, which is small where chance does not explain the pictures that one of the two alone has right.
    Runs that answered to other pictures are refused.
    """
    from train.compare import compare_runs, comparison_table
    from zoo.console import print_json, results_console

    found = compare_runs(options)
    if as_json:
        print_json(found.to_dict())
    else:
        results_console().print(comparison_table(found))


@click.command("train")
@takes(BenchTrainOptions)
@json_option
def bench_train(options: BenchTrainOptions, as_json: bool) -> None:
    """Time optimizer steps of MODEL at every stage's size: pictures a second."""

    from train.learn.throughput import measure_training
    from zoo.console import log_console
    from zoo.files import check_folder
    from zoo.results import write_result

    check_folder(options.out)
    result = measure_training(options, console=log_console())
    try:
        path = write_result(options.out, result)
    finally:  # on a full disk too: what took minutes to measure is printed
        _print_training(result, as_json=as_json)
    if not as_json:
        click.echo(path)


def _print_training(result: Result, *, as_json: bool) -> None:
    """A line for each stage, and before them that the machine was not quiet; or the result as JSON."""
    from train.learn.throughput import rounds_of
    from zoo.console import print_json, results_console
    from zoo.measure.rounds import disturbance
    from zoo.results import Summary
    from zoo.wording import milliseconds, percent

    if as_json:
        print_json(result.to_dict(), indent=None)
        return
    console = results_console()
    doubt = disturbance(rounds_of(result.data["rows"]))
    if doubt:
        console.print(f"• {doubt}")
    for row in result.data["rows"]:
        summary = Summary.from_dict(row["ms_per_step"])
        console.print(
            f"stage {row['stage']}  {row['image_size']:>3} px  batch {row['batch_size']:>4}  "
            f"[bold]{row['pictures_per_second']:>8.1f}[/] pictures/s  p50 {milliseconds(summary.p50_ms)}  "
            f"{summary.tail}  n {summary.n}"
        )
        if twin := row.get("timm"):
            theirs = Summary.from_dict(twin["ms_per_step"])
            console.print(
                f"         timm's {twin['network']} in turn: p50 {milliseconds(theirs.p50_ms)}, ours takes "
                f"{percent(summary.p50_ms / theirs.p50_ms)} of it; `zoo bench report` has the interval"
            )
