"""Owns the files a run leaves as it goes and at its end; it decides nothing about training."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from train.folder import CHECKPOINT, CLASSES, CONFUSION, CURVES, METRICS, PREDICTIONS, RANGE_TEST, REPORT, STATE
from train.learn.calibration import fit_temperature
from train.learn.find_rate import with_rate
from train.learn.job import Job
from train.learn.label_answers import LabelValidation
from train.learn.run import Epoch, HeadStart, Run, finite_or_none
from train.learn.scores import count_confusion
from train.learn.suitability import suited_to, told
from train.learn.validation import Answers, Judged, Validation
from train.learn.watcher import Watcher
from train.processes.stopping import RunStopped
from train.progressive.balance import unequal_remark
from train.progressive.rate_range import RangeTest
from train.room import save_or_rescue
from train.spreadsheets import HEADS, LABEL_HEADS, Answered, sheet
from train.watch.charts import draw_curves
from train.watch.classes import CSV_HEADS, csv_rows
from train.watch.labels import LABEL_CSV_HEADS, label_csv_rows, label_predictions
from train.watch.report import RunState, RunStatus, render_report
from train.watch.thumbnails import Drawn
from zoo.data.fingerprint import fingerprint, name_below
from zoo.data.hold_out import RULE
from zoo.data.pictures import Pictures
from zoo.errors import ZooError
from zoo.files import json_text, write_text
from zoo.machine import environment
from zoo.model.fake_quantize import float_state
from zoo.page.markup import printable
from zoo.page.matrix import DRAWN_CLASSES, draw_matrix
from zoo.visible import visible
from zoo.weights.checkpoint import Checkpoint

# A page costs tenths of a second, mostly for its thumbnails; epochs may take less than that.
REPORT_INTERVAL_S = 15.0
# What a full disk, or a library that draws a picture of an unheard-of shape, makes of a file that can be done without.
NOT_WRITTEN = (ZooError, OSError, ValueError, ArithmeticError, LookupError)


class RunRecord(Watcher):
    """Writes a run's folder as it goes: metrics after every epoch, the page now and then, the rest at the end.

    A run that ends early leaves its page too, with what there is by then. What cannot be drawn or written, figures
    included, costs a line on the console, not the run: only the checkpoint and the state are what it is for.
    """

    def __init__(self, folder: Path, job: Job, console: Console) -> None:
        self.folder = folder
        self.job = job
        self.console = console
        self._run: Run | None = None
        self._result: Judged | None = None
        self._test: Judged | None = None
        self._remarks: list[str] = [*filter(None, (unequal_remark(job.train_set, job.recipe),))]
        self._drawn = Drawn(channels=job.preprocessing.channels)
        self._reported_at = -REPORT_INTERVAL_S

    def on_remark(self, remark: str) -> None:
        """Keep it for the page."""
        self._remarks.append(remark)

    def on_head_start(self, found: HeadStart) -> None:
        """The page speaks of what the pictures were found to be suited for."""
        self.job = suited_to(self.job, found)
        self._remarks += told(found)

    def on_range_test(self, found: RangeTest) -> None:
        """Keep choice and curve beside the metrics; the page and the checkpoint speak of the rate that is used."""
        self.job = with_rate(self.job, found)
        self._attempt(RANGE_TEST, lambda: json_text(found.to_dict()) + "\n")

    def on_validation(self, result: Judged) -> None:
        """Keep the latest for the page."""
        self._result = result

    def on_epoch(self, run: Run, epoch: Epoch) -> None:
        """Rewrite the metrics whole: they are small, and a resumed run may have dropped lines."""
        self._run = run
        lines = [json.dumps(line.to_dict(), allow_nan=False) + "\n" for line in run.history]
        self._attempt(METRICS, lambda: "".join(lines))
        now = time.monotonic()
        if now - self._reported_at >= REPORT_INTERVAL_S:
            self._reported_at = now
            self._write_report("running")

    def on_end(self, error: BaseException | None) -> None:
        """Say in the page why the run ended early."""
        if isinstance(error, Exception):
            self._write_report("failed", error.problem if isinstance(error, ZooError) else f"{error!r}")
        elif error:  # a signal
            self._write_report("interrupted", error.where if isinstance(error, RunStopped) else "")

    def finish(self, run: Run, card: Checkpoint, result: Judged, test: Judged | None = None) -> None:
        """Write the checkpoint, which took longest to make, then page and pictures; then drop the state.

        Raises:
            ZooError, OSError: the checkpoint cannot be written; the state stays.
        """
        save_or_rescue(self.folder / CHECKPOINT, float_state(run.model, run.average.model.state_dict()), card)
        self._run, self._result, self._test = run, result, test
        self._write_report("finished")
        title = self.job.title
        self._attempt(CURVES, lambda: draw_curves(run.history, self.job.recipe, self._best_epoch(run), title))
        if isinstance(result, LabelValidation):
            self._write_labels(result, test if isinstance(test, LabelValidation) else None)
        else:
            self._write_classes(result, test if isinstance(test, Validation) else None, title)
        (self.folder / STATE).unlink(missing_ok=True)

    def _write_classes(self, result: Validation, test: Validation | None, title: str) -> None:
        """Confusion and spreadsheets of pictures with one class each."""
        classes = self.job.classes
        if len(classes) <= DRAWN_CLASSES:
            confusion = count_confusion(result.answers, len(classes))
            self._attempt(CONFUSION, lambda: draw_matrix(confusion, classes, title))
        self._attempt(PREDICTIONS, lambda: sheet(HEADS, self._predictions(result, test)))
        judged = ("test", test) if test else ("val", result)
        self._attempt(CLASSES, lambda: sheet(CSV_HEADS, csv_rows(self.job, judged[1].answers, judged[0])))

    def _write_labels(self, result: LabelValidation, test: LabelValidation | None) -> None:
        """Spreadsheets of pictures with several labels, by the thresholds of the validation pictures."""
        job, thresholds = self.job, result.thresholds
        rows = [*label_predictions("val", job.val_set, result.answers, thresholds)]
        if test and job.test_set:
            rows += label_predictions("test", job.test_set, test.answers, thresholds)
        self._attempt(PREDICTIONS, lambda: sheet(LABEL_HEADS, rows))
        split, judged = ("test", test) if test else ("val", result)
        lines = label_csv_rows(job, judged.answers, thresholds, split)
        self._attempt(CLASSES, lambda: sheet(LABEL_CSV_HEADS, lines))

    def _predictions(self, result: Validation, test: Validation | None) -> Iterator[Answered]:
        """The lines of predictions.csv: every readable picture of val and test."""
        yield from _answered("val", self.job.val_set, result.answers)
        if test and self.job.test_set:
            yield from _answered("test", self.job.test_set, test.answers)

    def _write_report(self, state: RunState, reason: str = "") -> None:
        """Write the page; before the first validation there is nothing to show."""
        run, result = self._run, self._result
        if run and result:
            broken = frozenset(run.broken)
            status = RunStatus(
                state=state,
                history=run.history,
                result=result,
                broken=broken,
                reason=reason,
                head_start=run.head_start,
                range_test=run.range_test,
                best_epoch=self._best_epoch(run),
                halfway=bool(run.best and run.best.share < 1),
                test=self._test,
                remarks=tuple(self._remarks),
            )
            self._attempt(REPORT, lambda: render_report(self.job, status, self._drawn))

    def _best_epoch(self, run: Run) -> int | None:
        """The best epoch at the final size so far, 0 for the head start; None where the last one is kept."""
        return run.best.epoch if run.best and self.job.recipe.keep == "best" else None

    def _attempt(self, name: str, draw: Callable[[], str]) -> None:
        path = self.folder / name
        try:
            write_text(path, printable(draw()))
        except NOT_WRITTEN as error:
            reason = error.problem if isinstance(error, ZooError) else str(error) or type(error).__name__
            self.console.print(f"[yellow]Warning:[/] {escape(f'{path} was not written: {reason}')}")


def _answered(split: str, pictures: Pictures, answers: Answers) -> Iterator[Answered]:
    names = [visible(name) for name in pictures.classes]
    columns = (answers.index, answers.label, answers.predicted, answers.label_score, answers.score)
    for index, label, predicted, label_score, score in zip(*(column.tolist() for column in columns), strict=True):
        yield Answered(split, name_below(pictures, index), names[label], names[predicted], label_score, score)


def provenance(job: Job, run: Run, result: Judged, test: Judged | None = None) -> dict[str, Any]:
    """Where a checkpoint's weights come from, as plain JSON types."""
    return {
        "data": job.data,
        "flip_keeps_class": job.train_set.flip_keeps_class,
        "hold_out": job.fold or RULE,
        "group_by": job.group_by,
        "fingerprints": _fingerprints(job),
        "started_from": job.start.label if job.start else None,
        "seed": job.settings.seed,
        "precision": job.settings.precision,
        "device": job.settings.device_name,
        "kept_weights": job.recipe.kept_weights,
        "epochs": len(run.history),
        "best_epoch": run.best.epoch if run.best else None,
        "halfway": bool(run.best and run.best.share < 1),
        "head_start": run.head_start.to_dict() if run.head_start else None,
        "range_test": _choice(run.range_test),
        "steps": run.step,
        "training_seconds": round(sum(line.seconds for line in run.history), 1),
        "val_top1": result.top1,
        "val_loss": finite_or_none(result.loss),
        "test_top1": test.top1 if test else None,
        "test_pictures": len(test.answers.index) if test else None,
        "val_map": result.map,
        "test_map": test.map if test else None,
        "temperature": fit_temperature(result.sample) if isinstance(result, Validation) else None,
        "val_pictures": len(job.val_set) - len(result.broken),
        "broken_pictures": len(run.broken),
        "environment": environment(),
    }


def _fingerprints(job: Job) -> dict[str, str]:
    """What tells the pictures that were looked at from others of the same names, by their split."""
    test = {"test": fingerprint(job.test_set)} if job.test_set else {}
    return {"val": job.fingerprints[1]} | test


def _choice(found: RangeTest | None) -> dict[str, Any] | None:
    """What a range test chose, without its curve, which is in the run folder."""
    if found is None:
        return None
    return {name: value for name, value in found.to_dict().items() if name not in ("rates", "losses")}
