"""Owns one search, from its options to what it leaves in its folder; every step of it is another file's."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from rich.console import Console

from train.input.decoders import decoders_kept
from train.processes.stopping import stop_requests
from train.search.live import LiveSearch
from train.search.long_trainings import LongTrainings
from train.search.options import SearchOptions
from train.search.page import render_search
from train.search.result import SearchResult
from train.search.store import Store
from train.search.trial import Lab
from train.search.trials import Trials
from train.search.worker import Worker, device_of, open_lab, settings_of
from train.settings import Settings
from zoo.files import check_folder, write_json, write_text
from zoo.model.row_files import write_row
from zoo.page.markup import printable
from zoo.wording import number_of, percent

STORE, WINNER, RESULT, REPORT = "search.db", "winner.toml", "search.json", "report.html"


def search(options: SearchOptions, *, console: Console | None = None) -> SearchResult:
    """Search a space, or go on with a search, and write what it has found: `WINNER`, `RESULT` and `REPORT`.

    Args:
        options: what to search, and how.
        console: where progress is printed; None is silent.

    Raises:
        MissingCapabilityError: no Optuna, or no such device. ZooError: as `open_lab` and `Store`; or every network
        fails. RunStopped: SIGTERM or Ctrl-C; what was being trained is done again by whoever goes on.
    """
    check_folder(options.out)
    lab = open_lab(options)
    settings = settings_of(lab, options)
    with closing(Store(options.store or str(options.out / STORE))) as store:
        result = _search(options, lab, settings, store, console or Console(quiet=True))
    write_search(options.out, result)
    return result


def _search(options: SearchOptions, lab: Lab, settings: Settings, store: Store, console: Console) -> SearchResult:
    """Make what is missing in the store, together with other workers, and say what there is then."""
    worker = Worker(options, lab, settings, store, LiveSearch(options, console))
    trials, long_trainings = Trials(worker), LongTrainings(worker)
    headline = (
        f"Searching {number_of(lab.space.size, 'network')} of the space {lab.space.id} on {options.data}: "
        f"{len(lab.pictures[0])} training and {len(lab.pictures[1])} validation pictures; trials in {store.shown}"
    )
    with stop_requests() as worker.stop, decoders_kept(lab.pictures, workers=settings.workers, pin=settings.pin):
        worker.view.begin(trials.known(), lab.space.reward, lab.unit, headline)
        with worker.view:
            trials.make()
            if options.finalists:
                long_trainings.make(trials.known())
    return SearchResult.of(
        lab=lab,
        options=options,
        device=device_of(settings),
        names=worker.names,
        trials=trials.known(),
        trainings=long_trainings.known(),
    )


def write_search(folder: Path, result: SearchResult) -> None:
    """Write the winner's row, which took longest to find, then figures and page; all are replaced whole.

    Raises:
        ZooError: one of them cannot be written.
    """
    winner = result.winner
    if winner and result.winner_row:
        how = "long trainings" if winner.confirmed else "one short training each, and no long ones"
        comment = (
            f"{winner.code}: the highest reward of {len(result.finished)} networks, by {how}.\n"
            f"{percent(winner.top1)} top-1 on {result.data} at {result.image_size} px."
        )
        write_row(folder / WINNER, result.winner_row, comment)
    write_json(folder / RESULT, result.to_dict())
    write_text(folder / REPORT, printable(render_search(result)))
