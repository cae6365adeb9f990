"""A store keeps one search, says whose it is, and tells every failure in words that help."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

optuna = pytest.importorskip("optuna")

from sqlalchemy import event  # noqa: E402  it comes with Optuna

from train.search.store import Store  # noqa: E402
from zoo.errors import ZooError  # noqa: E402

ONE = ("maximize",)
SEARCH = {"space": "a", "number of epochs": 10}


def opened(place: str | Path, **identity: Any) -> Any:
    return Store(str(place), wait_s=0.05).study("search", ONE, SEARCH | identity)


def test_a_store_is_made_with_its_folder_and_opened_again(tmp_path: Path) -> None:
    place = tmp_path / "new" / "search.db"
    opened(place).ask()
    assert len(opened(place).get_trials()) == 1


def test_another_search_is_refused_and_what_differs_is_named(tmp_path: Path) -> None:
    opened(tmp_path / "search.db")
    with pytest.raises(ZooError, match=r"another space \(a, here b\) and another number of epochs \(10, here 3\)"):
        opened(tmp_path / "search.db", space="b", **{"number of epochs": 3})


def test_several_searches_have_names(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "search.db"))
    store.study("one", ONE, SEARCH)
    store.study("two", ONE, SEARCH | {"space": "b"})


def test_a_study_of_another_program_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "search.db"
    optuna.create_study(storage=f"sqlite:///{place}", study_name="search").ask()
    with pytest.raises(ZooError, match="no search of the zoo"):
        opened(place)


def test_a_locked_store_says_so(tmp_path: Path) -> None:
    place = tmp_path / "search.db"
    study = Store(str(place), wait_s=0.05)
    opened_study = study.study("search", ONE, SEARCH)
    with sqlite3.connect(place) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ZooError, match=r"search\.db is locked by another program"):
            study.reach(opened_study.ask)
    study.reach(opened_study.ask)


def test_a_short_lock_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "search.db"
    store = Store(str(place), wait_s=0.05)
    study = store.study("search", ONE, SEARCH)
    other = sqlite3.connect(place)
    other.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr("train.search.store.time.sleep", lambda seconds: other.rollback())
    store.reach(study.ask, pauses_s=(1.0,))
    assert len(study.get_trials()) == 1
    other.close()


def test_a_full_disk_says_so_and_keeps_what_is_there(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "search.db"))
    study = store.study("search", ONE, SEARCH)
    store.reach(study.ask)

    @event.listens_for(store.storage.engine, "connect")
    def no_more_pages(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # SQLite's own way to be on a full disk

    store.storage.engine.dispose()
    trial = study.get_trials()[0]
    with pytest.raises(ZooError, match="cannot grow: the disk is full"):
        store.reach(lambda: study.set_user_attr("large", "x" * 100_000))
    assert trial.number == 0 and len(opened(tmp_path / "search.db").get_trials()) == 1


@pytest.mark.parametrize(
    ("content", "said"), [(b"no database at all, but a text of some length\n" * 4, "is no database")]
)
def test_a_file_of_something_else_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "search.db").write_bytes(content)
    with pytest.raises(ZooError, match=said):
        opened(tmp_path / "search.db")
    assert (tmp_path / "search.db").read_bytes() == content


@pytest.mark.parametrize(
    ("place", "kind", "said"),
    [
        ("nosuch://me:secret@host/name", ZooError, "no kind of database"),
        ("postgresql+nosuch://me:secret@host/name", ZooError, "no kind of database"),
        ("mysql+nosuch://me:secret@host:port/name", ZooError, "no address of a database"),
        ("sqlite://", ZooError, "is in memory"),
        ("://me:secret@host", ZooError, "no address of a database"),
    ],
)
def test_an_address_that_cannot_be_used_is_told_without_its_password(place: str, kind: Any, said: str) -> None:
    with pytest.raises(kind, match=said) as caught:
        Store(place)
    assert "secret" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(ZooError, match="Cannot write to") as refused:
        Store("/proc/none/search.db")
    assert "--store" in str(refused.value.hint)
