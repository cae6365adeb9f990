"""No piece of work is done twice and none is lost, whoever dies."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

optuna = pytest.importorskip("optuna")

from train.search import claims  # noqa: E402
from train.search.claims import KILLED_TWICE, Board, Claim, GivenAway, here, is_gone  # noqa: E402
from train.search.store import Store  # noqa: E402


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return second(tmp_path)


def second(folder: Path) -> Board:
    """A board as another process would open it."""
    store = Store(str(folder / "search.db"))
    return Board(store, store.study("search", ("maximize",), {"space": "a"}))


def take(board: Board, key: str) -> Claim | None:
    return board.take(lambda: (board.study.ask(), key))


def standings(board: Board) -> list[tuple[str | None, str]]:
    return [(piece.key, piece.standing) for piece in board.pieces()]


@pytest.fixture
def dead_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def kill(claim: Claim, process: int) -> None:
    """As if the process that made the claim had been killed."""
    claim.trial.set_user_attr(claims.WORKER, {"host": here(), "process": process})


def test_what_is_done_or_in_hand_is_not_taken_again(board: Board) -> None:
    done, running = take(board, "a"), take(board, "b")
    assert done and running
    done.finish([1.0], {"top1": 1})
    assert take(board, "a") is None and take(board, "b") is None
    assert standings(board) == [("a", "done"), ("b", "running")]
    assert board.pieces()[0].outcome == {"top1": 1}


def test_what_failed_or_was_stopped_early_is_not_taken_again(board: Board) -> None:
    failed, behind = take(board, "a"), take(board, "b")
    assert failed and behind
    failed.fail("out of memory", {})
    behind.stop_early({})
    assert take(board, "a") is None and take(board, "b") is None
    assert [piece.reason for piece in board.pieces()] == ["out of memory", ""]
    assert all(piece.settled for piece in board.pieces())


def test_what_was_let_go_is_open_again_however_often(board: Board) -> None:
    for _ in range(3):
        claim = take(board, "a")
        assert claim
        claim.release()
        assert [piece.key for piece in board.open_again()] == ["a"]
    last = take(board, "a")
    assert last
    last.finish([1.0], {})
    assert board.open_again() == []


def test_work_of_a_killed_process_is_done_once_more_and_then_failed(board: Board, dead_process: int) -> None:
    first = take(board, "a")
    assert first
    kill(first, dead_process)
    assert [piece.key for piece in board.open_again()] == ["a"]
    board.settle_the_dead()
    again = take(board, "a")
    assert again
    kill(again, dead_process)
    board.settle_the_dead()
    assert board.open_again() == [] and take(board, "a") is None
    assert [piece.reason for piece in board.pieces() if piece.settled] == [KILLED_TWICE]


def test_a_signal_or_an_error_lets_go(board: Board) -> None:
    claim = take(board, "a")
    assert claim
    with pytest.raises(KeyboardInterrupt), board.alive(claim):
        raise KeyboardInterrupt
    assert [piece.key for piece in board.open_again()] == ["a"]


def test_a_worker_says_that_it_is_alive(board: Board) -> None:
    claim = take(board, "a")
    assert claim
    before = board.study.get_trials()[0].user_attrs[claims.ALIVE]
    with board.alive(claim, every_s=0.01):
        deadline = time.monotonic() + 30
        while board.study.get_trials()[0].user_attrs[claims.ALIVE] == before:
            assert time.monotonic() < deadline
        claim.finish([1.0], {})


def test_a_worker_of_another_machine_is_gone_when_it_is_silent() -> None:
    other = {"host": "another", "process": 1}
    assert not is_gone(other, alive_s=1000.0, now_s=1000.0 + claims.GONE_AFTER_S - 1)
    assert is_gone(other, alive_s=1000.0, now_s=1000.0 + claims.GONE_AFTER_S + 1)


def test_a_worker_of_this_machine_is_gone_when_its_process_is(dead_process: int) -> None:
    assert is_gone({"host": here(), "process": dead_process}, 1000.0, 1000.0)
    assert not is_gone({"host": here(), "process": os.getpid()}, 1000.0, 1000.0)
    assert not is_gone({"host": here(), "process": 1}, 1000.0, 1000.0)  # somebody else's


def test_a_process_of_another_container_of_this_machine_is_not_asked_for(dead_process: int) -> None:
    other = f"{socket.gethostname()} pid:[1]"
    assert not is_gone({"host": other, "process": dead_process}, 1000.0, 1000.0)


def test_a_worker_that_was_taken_for_gone_finds_its_piece_given_away(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = take(board, "a")
    assert slept
    with monkeypatch.context() as patch:
        patch.setattr(claims, "GONE_AFTER_S", -1.0)
        again = take(board, "a")
    assert again
    again.finish([1.0], {"top1": 1})
    with pytest.raises(GivenAway), board.alive(slept):
        slept.note({"costs": 1})
    with pytest.raises(GivenAway):
        slept.is_behind(0.5, epoch=1)
    with pytest.raises(GivenAway):
        slept.finish([2.0], {})
    assert standings(board) == [("a", "open"), ("a", "done")] and not board.open_again()


def test_what_was_written_before_the_connection_broke_is_not_written_again(board: Board) -> None:
    claim = take(board, "a")
    assert claim
    claim.finish([1.0], {"top1": 1})
    claim.finish([1.0], {"top1": 1})
    assert standings(board) == [("a", "done")]


def test_workers_that_all_want_the_same_pieces_do_each_once(tmp_path: Path) -> None:
    second(tmp_path)  # the tables are there before all begin
    taken: list[str] = []
    start = threading.Barrier(3)

    def work() -> None:
        board = second(tmp_path)
        start.wait(timeout=60)
        for key in "abcd":
            claim = take(board, key)
            if claim:
                taken.append(key)
                claim.finish([1.0], {})

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert sorted(taken) == ["a", "b", "c", "d"]
    assert [standing for _, standing in standings(second(tmp_path))] == ["done"] * 4


def test_a_row_that_another_worker_ends_at_the_same_moment_is_no_error(
    board: Board, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A row that is one too many means nothing as soon as it says so, and whoever looks next may end it."""
    assert take(board, "a")
    tell, other = board.study.tell, second(tmp_path)

    def late(*row: object, **told: object) -> object:
        other.settle_the_dead()
        return tell(*row, **told)  # type: ignore[arg-type]

    monkeypatch.setattr(board.study, "tell", late)
    assert take(board, "a") is None
    assert standings(board) == [("a", "running")]


def test_a_worker_that_slept_before_its_row_had_a_key_goes_on(
    board: Board, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def ask() -> tuple[optuna.trial.Trial, str]:
        trial = board.study.ask()
        monkeypatch.setattr(claims, "TAKEN_WITHIN_S", 0.0)
        second(tmp_path).settle_the_dead()
        monkeypatch.undo()
        return trial, "a"

    assert board.take(ask) is None
    assert take(board, "a")


def test_a_row_whose_worker_died_before_it_had_a_key_holds_nobody_up(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.study.ask()
    monkeypatch.setattr(claims, "TAKEN_WITHIN_S", 0.0)
    assert take(board, "a")
    board.settle_the_dead()
    assert [state.name for state in (trial.state for trial in board.study.get_trials())] == ["FAIL", "RUNNING"]
