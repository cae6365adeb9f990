"""Owns the commands `zoo export`, `zoo predict` and `zoo evaluate`: parse, call one function, print."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import click

from export.options import EvaluateOptions, ExportOptions, InspectOptions, PredictOptions
from zoo.options import json_option, takes


@click.command()
@takes(ExportOptions)
@json_option
def export(options: ExportOptions, as_json: bool) -> None:
    """Turn MODEL into ONNX and a TensorRT plan, checked.

    MODEL is an id (its run's checkpoint, else its published weights) or a checkpoint's path. Real pictures go through
    PyTorch and every artifact; if an answer differs, nothing is written and the exit code is 3.
    """
    from rich.text import Text

    from export.pipeline import export_model
    from export.tables import export_remarks, export_table
    from export.watch import watching
    from zoo.console import log_console, print_json, results_console

    with watching(log_console()) as watch:
        result = export_model(options, watch=watch)
    if as_json:
        print_json(result.to_dict())
        return
    console = results_console()
    console.print(export_table(result))
    for remark in export_remarks(result):
        console.print(Text(remark, style="dim"), soft_wrap=True)


@click.command()
@takes(InspectOptions)
@json_option
def inspect(options: InspectOptions, as_json: bool) -> None:
    """Say what ARTIFACT is: a checkpoint, an .onnx, a .plan, or a model's id.

    Its stages, inputs and outputs, preprocessing, classes, verdicts, licence, what made it, and which runner opens it
    on this machine. It runs nothing.

    \b
    zoo inspect s.onnx
    zoo inspect s.onnx --snippet python
    """
    from export.inspection.card import inspect_artifact
    from export.inspection.shown import show
    from export.inspection.snippet import snippet_of
    from zoo.console import print_json, results_console

    if options.snippet and as_json:
        raise click.UsageError("--json has no effect with --snippet.")
    _check_signature(options.artifact, options.require_signature)
    found = inspect_artifact(options.artifact, signed_by=options.require_signature)
    if options.snippet:
        click.echo(snippet_of(found, options.snippet), nl=False)
    elif as_json:
        print_json(found.to_dict())
    else:
        show(found, results_console())


@click.command()
@takes(PredictOptions)
@json_option
def predict(options: PredictOptions, as_json: bool) -> None:
    """Classify pictures with ARTIFACT: a checkpoint, an .onnx, a .plan, or a model's id.

    A PICTURE is a file, a folder (its sub-folders too), a quoted pattern, an http(s) address, or - for one picture from
    standard input. What is no picture in a folder is left out. A broken picture is named on stderr, the others are
    still classified, and the exit code is 1. --json prints an object a line.

    \b
    zoo predict s.onnx photo.jpg holiday/ 'scans/*.png' https://example.org/cat.jpg
    curl -s https://example.org/cat.jpg | zoo predict s.onnx -
    """
    from rich.text import Text

    from export.predict import BATCH_SIZE
    from export.predict import predict as predict_pictures
    from export.runners.open import open_runner
    from export.tables import classification_table
    from export.watch import Watch, watching
    from zoo.console import log_console, print_json, results_console
    from zoo.data.named import find_pictures
    from zoo.errors import DataError
    from zoo.visible import visible

    _check_signature(options.artifact, options.require_signature)
    pictures, left_out = find_pictures(options.pictures)
    results, log = results_console(), log_console()
    if left_out:
        log.print(Text(f"Left out: {'; '.join(left_out)}."), soft_wrap=True)
    broken = 0
    # On a terminal the answers themselves show how far it is.
    shown = len(pictures) > BATCH_SIZE and not results.is_terminal
    with (
        open_runner(options.artifact, device=options.device, flip=options.flip, backend=options.backend) as runner,
        watching(log) if shown else nullcontext(Watch()) as watch,
    ):
        answered = predict_pictures(runner, pictures, top=options.top, calibrated=options.calibrated)
        watch.step(f"Classify {len(pictures):,} pictures with {options.artifact}, {runner.device}")
        for done, found in enumerate(answered, start=1):
            watch.progress(f"{done}/{len(pictures)}", done, len(pictures))
            if found.error:
                broken += 1
                log.print(Text(str(found.error), style="red"), soft_wrap=True)
            elif as_json:
                print_json(found.to_dict(), indent=None)
            else:
                results.print(Text(visible(str(found.picture)), style="bold"), soft_wrap=True)
                results.print(classification_table(found))
    if broken:
        raise DataError(f"{broken} of {len(pictures)} pictures could not be read.")


@click.command()
@takes(EvaluateOptions)
@json_option
def evaluate(options: EvaluateOptions, as_json: bool) -> None:
    """Measure the accuracy of ARTIFACT: a checkpoint, an .onnx, a .plan, or a model's id.

    Of one that answers several labels a picture it is mAP, and F1 at its thresholds. Broken pictures are named on
    stderr and left out.
    """
    from rich.text import Text

    from export.evaluate import evaluate as evaluate_runner
    from export.evaluate import open_data
    from export.runners.open import open_runner
    from export.tables import evaluation_words
    from export.watch import watching
    from zoo.console import log_console, print_json, results_console

    _check_signature(options.artifact, options.require_signature)
    if options.pictures == "quick":
        return _evaluate_quick(options, as_json=as_json)
    if options.sign:
        raise click.UsageError("--sign has no effect without --pictures quick.")
    pictures = open_data(options.artifact, options.data, seed=options.seed, group_by=options.group_by)
    opened = open_runner(options.artifact, device=options.device, flip=options.flip, backend=options.backend)
    with opened as runner, watching(log_console()) as watch:
        watch.step(f"Evaluate {options.artifact} on {pictures.name}, {runner.device}")
        found = evaluate_runner(
            runner,
            pictures,
            batch_size=options.batch_size,
            on_progress=lambda done, total: watch.progress(f"{done}/{total}", done, total),
            on_broken=lambda problem: watch.remark(f"Left out: {problem}"),
        )
    if as_json:
        print_json(found.to_dict(), indent=None)
        return
    mirrored = ", each with its mirror image" if found.flip else ""
    over = f"on {found.n} pictures of {pictures.name}{mirrored}"
    results_console().print(Text.assemble((found.artifact, "bold"), f"  {evaluation_words(found)}  {over}"))


def _evaluate_quick(options: EvaluateOptions, *, as_json: bool) -> None:
    """Measure what quick pictures change, and write it into the passport."""
    from rich.text import Text

    from export.evaluate import open_data
    from export.quick_effect import check_recordable, measure_quick, record_quick
    from export.runners.open import open_runner
    from export.watch import watching
    from zoo.console import log_console, print_json, results_console

    key = check_recordable(options.artifact, options.sign)
    pictures = open_data(options.artifact, options.data, seed=options.seed, group_by=options.group_by)
    opened = open_runner(options.artifact, device=options.device, backend=options.backend)
    with opened as runner, watching(log_console()) as watch:
        watch.step(f"Evaluate {options.artifact} on {pictures.name} prepared exactly and quickly, {runner.device}")
        card = measure_quick(
            runner,
            pictures,
            batch_size=options.batch_size,
            on_progress=lambda done, total: watch.progress(f"{done}/{total}", done, total),
            on_broken=lambda problem: watch.remark(f"Left out: {problem}"),
        )
    written = record_quick(Path(options.artifact), card, key)
    if as_json:
        print_json(card.to_dict(), indent=None)
        return
    said = f"  quick pictures: {card.summary()}, {card.num_quick} of them JPEGs. {written} says so."
    results_console().print(Text.assemble((options.artifact, "bold"), said), soft_wrap=True)


def _check_signature(artifact: str, public_key: Path | None) -> None:
    """Before anything of an artifact is read: refuse one that is not signed as required."""
    if public_key:
        from export.signature import require_signature

        require_signature(artifact, public_key)
