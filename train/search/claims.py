"""Owns who does which piece of a search's work, so that none is done twice and none is lost; the work is others'.

A piece has a key, such as a network's code. Whoever takes it writes key and worker into a new row of the study, then
looks whether a row with a smaller number has the same key: that one stays. A worker says every minute that it is
alive. A row whose worker is gone is set free: its piece is done once more, and failed if that ends its worker again.
A worker that was thought gone and comes back, such as a laptop that slept, finds that its piece is not its own now.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from train.search.store import PAUSES_S, Store
from zoo.errors import ZooError

if TYPE_CHECKING:
    import optuna

T = TypeVar("T")
KEY, WORKER, ALIVE, REASON, OUTCOME = "key", "worker", "alive", "reason", "outcome"
RELEASED, TWICE = "released", "twice"
BEAT_S = 60.0
# A worker on another machine that has said nothing for so long is gone; its clock may be some minutes wrong.
GONE_AFTER_S = 15 * 60.0
# Between making a row and writing its key are milliseconds. A row without one for so long was never taken.
TAKEN_WITHIN_S = 30.0
KILLED_TWICE = "it ended its process twice, or the store was away for long both times"
# Open: nobody has done it, or whoever began it let go or was killed once.
Standing = Literal["done", "stopped early", "failed", "running", "open", "void"]


@dataclass(frozen=True)
class Piece:
    """A row of the study. `params` are what its sampler chose; `outcome` is what whoever did it has written."""

    number: int
    key: str | None
    standing: Standing
    params: Mapping[str, Any]
    outcome: Mapping[str, Any]
    reason: str = ""

    @property
    def settled(self) -> bool:
        """Whether it is over, for good or bad."""
        return self.standing in ("done", "stopped early", "failed")


class GivenAway(Exception):
    """A piece of work is not this worker's any more: it was silent for so long that others took it for gone."""


def pieces_of(rows: Sequence[optuna.trial.FrozenTrial], now_s: float) -> list[Piece]:
    """What every row means, in order; rows that nobody took, or that were taken twice, are void."""
    killed: defaultdict[str | None, int] = defaultdict(int)
    pieces = []
    for row in rows:
        key, reason = row.user_attrs.get(KEY), row.user_attrs.get(REASON, "")
        standing = _standing(row, now_s)
        if standing == "open" and not row.user_attrs.get(RELEASED):
            killed[key] += 1
            if killed[key] > 1:
                standing, reason = "failed", KILLED_TWICE
        pieces.append(Piece(row.number, key, standing, row.params, row.user_attrs.get(OUTCOME, {}), reason))
    return pieces


def _standing(row: optuna.trial.FrozenTrial, now_s: float) -> Standing:
    attrs, state = row.user_attrs, row.state.name
    if state == "WAITING" or attrs.get(TWICE):
        return "void"
    if state == "RUNNING":
        if KEY in attrs:
            return "open" if is_gone(attrs[WORKER], attrs[ALIVE], now_s) else "running"
        began = row.datetime_start.timestamp() if row.datetime_start else 0.0
        return "running" if now_s - began < TAKEN_WITHIN_S else "void"
    if state == "FAIL":
        return "failed" if REASON in attrs else "open" if KEY in attrs else "void"
    return "done" if state == "COMPLETE" else "stopped early"


def is_gone(worker: Mapping[str, Any], alive_s: float, now_s: float) -> bool:
    """Whether a worker has ended: on this machine the system knows it, of another one its silence tells."""
    if now_s - alive_s > GONE_AFTER_S:
        return True
    if worker["host"] != here() or os.name == "nt":  # there, asking with signal 0 would end it
        return False
    try:
        os.kill(worker["process"], 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's process
        return False
    return False


@cache
def here() -> str:
    """Where numbers of processes mean the same ones: the machine, and on Linux the container."""
    try:
        return f"{socket.gethostname()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


class Claim:
    """A piece of work that this worker has taken, and where its outcome goes."""

    def __init__(self, board: Board, trial: optuna.trial.Trial, key: str) -> None:
        self.board = board
        self.trial = trial
        self.key = key

    def note(self, outcome: Mapping[str, Any]) -> None:
        """Write what is known so far."""
        self._write(lambda: self.trial.set_user_attr(OUTCOME, dict(outcome)))

    def is_behind(self, reward: float, epoch: int) -> bool:
        """Write the reward after an epoch; whether the study's pruner has seen enough of the piece."""
        self._write(lambda: self.trial.report(reward, epoch))
        return self._write(self.trial.should_prune)

    def finish(self, values: Sequence[float], outcome: Mapping[str, Any]) -> None:
        """It is done; `values` are for the sampler."""
        self._end("COMPLETE", {OUTCOME: dict(outcome)}, list(values))

    def stop_early(self, outcome: Mapping[str, Any]) -> None:
        """It was ended because it is behind."""
        self._end("PRUNED", {OUTCOME: dict(outcome)})

    def fail(self, reason: str, outcome: Mapping[str, Any]) -> None:
        """It cannot be done, and is not to be tried again."""
        self._end("FAIL", {OUTCOME: dict(outcome), REASON: reason})

    def release(self) -> None:
        """Let go: somebody else may do it."""
        self._end("FAIL", {RELEASED: True})

    def _end(self, state: str, attrs: Mapping[str, Any], values: list[float] | None = None) -> None:
        import optuna

        def write() -> None:
            for name, value in attrs.items():
                self.trial.set_user_attr(name, value)
            self.board.study.tell(self.trial, values, state=optuna.trial.TrialState[state])

        try:
            self._write(write, PAUSES_S)  # what took long to find out is not lost because the store was away
        except GivenAway:
            if self.board.state_of(self.trial.number) != state:
                raise  # else it was written before the connection broke

    def _write(self, access: Callable[[], T], pauses_s: Sequence[float] | None = None) -> T:
        """Write to the row of this piece.

        Raises:
            GivenAway: somebody else has ended it. ZooError: the store cannot be used.
        """
        try:
            return self.board.store.reach(access, pauses_s)
        except (RuntimeError, ValueError) as error:  # what Optuna says of a row that has ended
            if self.board.state_of(self.trial.number) != "RUNNING":
                raise GivenAway(self.key) from error
            raise


class Board:
    """The pieces of work of one study, for this worker and all others."""

    def __init__(self, store: Store, study: optuna.study.Study) -> None:
        self.store = store
        self.study = study

    def reach(self, access: Callable[[], T]) -> T:
        """As `Store.reach`."""
        return self.store.reach(access)

    def state_of(self, number: int) -> str:
        """Optuna's state of a row; nothing can be written to one that is not RUNNING."""
        rows = self.reach(lambda: self.study.get_trials(deepcopy=False))
        return next(row.state.name for row in rows if row.number == number)

    def pieces(self) -> list[Piece]:
        """Every row that means something, in order.

        Raises:
            ZooError: the store cannot be read.
        """
        rows = self.reach(lambda: self.study.get_trials(deepcopy=False))
        return [piece for piece in pieces_of(rows, time.time()) if piece.standing != "void"]

    def settle_the_dead(self) -> None:
        """Write down that the workers of some rows are gone. Two workers may try at once: one of them does it."""
        import optuna

        for row in self.reach(lambda: self.study.get_trials(deepcopy=False)):
            if row.state == optuna.trial.TrialState.RUNNING and _standing(row, time.time()) in ("open", "void"):
                self._end(row.number)

    def _end(self, number: int) -> None:
        """Write that a row is over, unless somebody else does so at this moment."""
        import optuna

        try:
            self.reach(lambda: self.study.tell(number, state=optuna.trial.TrialState.FAIL))
        except (RuntimeError, ValueError):  # what Optuna says of a row that has ended
            if self.state_of(number) == "RUNNING":
                raise

    def open_again(self) -> list[Piece]:
        """The pieces that somebody began and nobody is doing or has done, each once."""
        pieces = self.pieces()
        taken = {piece.key for piece in pieces if piece.standing != "open"}
        return list(
            {piece.key: piece for piece in pieces if piece.standing == "open" and piece.key not in taken}.values()
        )

    def take(self, ask: Callable[[], tuple[optuna.trial.Trial, str]]) -> Claim | None:
        """Take the piece that `ask` proposes as a new row and its key; None where somebody has it, or did it.

        None too where this worker slept so long that others took its row for a dead worker's.

        Raises:
            ZooError: the store cannot be used.
        """
        self.settle_the_dead()  # whoever comes back finds that its row has ended, and no piece is done twice
        trial, key = self.reach(ask)
        try:
            return self._claim(trial, key)
        except RuntimeError:  # what Optuna says of a row that has ended
            if self.state_of(trial.number) == "RUNNING":
                raise
            return None

    def _claim(self, trial: optuna.trial.Trial, key: str) -> Claim | None:
        """The piece of a row just made, if it is the only one or the first that wants it."""
        told = {WORKER: {"host": here(), "process": os.getpid()}, ALIVE: time.time(), KEY: key}
        for name, value in told.items():  # the key last: a row with a key has a worker
            self.reach(lambda: trial.set_user_attr(name, value))  # noqa: B023
        while any(piece.key is None and piece.number < trial.number for piece in self.pieces()):
            time.sleep(0.02)  # that row was made a moment ago, and its key may be the same
        earlier = [piece for piece in self.pieces() if piece.key == key and piece.number != trial.number]
        if any(piece.settled or (piece.standing == "running" and piece.number < trial.number) for piece in earlier):
            self.reach(lambda: trial.set_user_attr(TWICE, True))  # others may end the row from here on
            self._end(trial.number)
            return None
        return Claim(self, trial, key)

    @contextmanager
    def alive(self, claim: Claim, every_s: float = BEAT_S) -> Iterator[None]:
        """Say every minute that this worker is alive; let go of the piece if the block ends by a signal or an error.

        Raises:
            GivenAway: the piece was somebody else's when it ended.
        """
        over = threading.Event()

        def beat() -> None:
            while not over.wait(every_s):
                try:
                    self.store.reach(lambda: claim.trial.set_user_attr(ALIVE, time.time()), pauses_s=())
                except RuntimeError:
                    return  # the piece has ended a moment ago, and its row takes nothing any more
                except ZooError:
                    continue  # the store is away for a moment; whoever ends the piece will say so if it stays away

        thread = threading.Thread(target=beat, daemon=True, name="zoo-search-alive")
        thread.start()
        own = True
        try:
            yield
            own = False
        except GivenAway:
            own = False
            raise
        finally:
            over.set()
            thread.join()
            if own:
                claim.release()
