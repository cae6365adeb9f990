from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

from export.staging import staging
from zoo.files import replacing
from zoo.stopping import STOPPING, Stopped, hold_signals, stop_signals


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_unwinds_what_is_being_written(number: int, tmp_path: Path) -> None:
    before = signal.getsignal(number)
    with (
        pytest.raises(Stopped) as stopped,
        stop_signals(),
        staging(tmp_path / "new", "s") as made,
        replacing(made / "s.onnx") as temporary,
    ):
        temporary.write_bytes(b"half")
        send(number)
    assert stopped.value.exit_code == 128 + number
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) is before


def test_a_signal_counts_whatever_error_a_library_makes_of_it() -> None:
    with pytest.raises(Stopped) as stopped, stop_signals():
        try:
            send(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise RuntimeError("failed to export the model") from error
    assert stopped.value.exit_code == 130
    assert isinstance(stopped.value.__cause__, RuntimeError)


@pytest.mark.parametrize("fails", [False, True])
def test_a_signal_that_is_held_is_known_at_once_and_counts_after_the_block(fails: bool) -> None:
    told: list[bool] = []
    with pytest.raises(Stopped) as stopped, stop_signals(), hold_signals() as came:
        told.append(came())
        send(signal.SIGTERM)
        told.append(came())
        if fails:
            raise RuntimeError("the library gave up")
    assert told == [False, True]
    assert stopped.value.exit_code == 143


def test_the_first_signal_counts_and_a_second_one_leaves_the_tidying_up_alone() -> None:
    tidy = False
    with pytest.raises(Stopped) as stopped, stop_signals():
        try:
            send(signal.SIGTERM)
        finally:
            send(signal.SIGTERM)
            tidy = True
    assert stopped.value.number == signal.SIGTERM and tidy


def test_the_same_press_of_ctrl_c_leaves_the_tidying_up_alone() -> None:
    """A terminal sends it to the whole group, and a launcher in it sends it on."""
    tidy = False
    with pytest.raises(Stopped) as stopped, stop_signals():
        try:
            send(signal.SIGINT)
        finally:
            send(signal.SIGINT)
            tidy = True
    assert stopped.value.number == signal.SIGINT and tidy


def test_a_second_ctrl_c_stops_the_tidying_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.stopping.SAME_PRESS_S", 0.0)
    with pytest.raises(Stopped), stop_signals():
        try:
            send(signal.SIGINT)
        finally:
            send(signal.SIGINT)
            pytest.fail("went on")


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
def test_a_second_ctrl_c_while_libraries_leave_shows_no_traceback() -> None:
    program = """if True:
        import atexit, os, signal
        from zoo import cli

        def stop(**_):
            raise KeyboardInterrupt
        atexit.register(os.kill, os.getpid(), signal.SIGINT)
        cli.cli = stop
        cli.main()
    """
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "Stopped.\n")


def test_what_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals():
            send(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_process_dies_of_the_signal() -> None:
    with stop_signals():
        child = os.fork()
        if child == 0:
            send(signal.SIGTERM)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM


def test_another_thread_than_the_first_installs_nothing() -> None:
    handlers: list[object] = []

    def look() -> None:
        with stop_signals():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]


def test_a_signal_that_falls_into_a_callback_of_the_garbage_collection_comes_again() -> None:
    class Thing:
        pass

    def stop(gone: object) -> None:
        send(signal.SIGTERM)
        time.sleep(0)  # it is raised here, where the interpreter can only drop it

    thing = Thing()
    watched = weakref.ref(thing, stop)
    with pytest.raises(Stopped) as stopped, stop_signals():
        del thing
        threading.Event().wait(60)
    assert stopped.value.number == signal.SIGTERM
    assert watched() is None
