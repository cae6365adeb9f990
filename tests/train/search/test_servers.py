"""A search in a real PostgreSQL, which is stopped under it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from train.search import store as store_module
from train.search import trials as trials_module
from train.search.options import SearchOptions
from train.search.run import search
from train.search.store import Store
from train.search.trial import train_network
from zoo.errors import ZooError

DRIVERS = [name for name in ("psycopg", "psycopg2") if importlib.util.find_spec(name)]
PROGRAMS = ("initdb", "pg_ctl")
pytestmark = pytest.mark.skipif(
    not DRIVERS or not all(map(shutil.which, PROGRAMS)),
    reason="needs PostgreSQL's initdb and pg_ctl on the PATH, and psycopg or psycopg2",
)


@dataclass
class Server:
    """A PostgreSQL of this test, with the user zoo and a password. As root, which it refuses, it is nobody's."""

    folder: Path
    port: int
    user: str | None

    def address(self, password: str = "secret", name: str = "postgres") -> str:
        """Where it is."""
        return f"postgresql+{DRIVERS[0]}://zoo:{password}@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        how = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -k {self.folder}"
        self.call("pg_ctl", "-D", f"{self.folder}/data", "-o", how, "-l", f"{self.folder}/log", "-w", "start")

    def stop(self) -> None:
        """Stop it; connections are broken."""
        self.call("pg_ctl", "-D", f"{self.folder}/data", "-m", "fast", "-w", "stop")

    def call(self, *words: str) -> None:
        """One of PostgreSQL's commands."""
        subprocess.run(words, check=True, user=self.user, stdout=subprocess.DEVNULL, cwd=self.folder, timeout=240)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with socket.socket() as free, TemporaryDirectory(prefix="zoo-postgres-") as folder:  # short: a socket's path is
        free.bind(("127.0.0.1", 0))
        made = Server(Path(folder), free.getsockname()[1], "nobody" if os.name != "nt" and os.geteuid() == 0 else None)
        free.close()
        (made.folder / "password").write_text("secret\n")
        (made.folder / "password").chmod(0o644)
        if made.user:
            shutil.chown(folder, made.user)
        asked = f"-D {folder}/data -U zoo --auth scram-sha-256 --pwfile {folder}/password --no-sync -E UTF8"
        made.call("initdb", *asked.split())
        made.start()
        yield made
        made.stop()


def test_a_search_survives_a_restart_of_its_server_and_goes_on_in_another_folder(
    server: Server, asked: Callable[..., SearchOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PAUSES_S", (0.0,) * 3)

    def restarted(job: object, **told: object) -> object:
        server.stop()
        server.start()
        return train_network(job, **told)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(trials_module, "train_network", restarted)
        first = search(asked(trials=1, store=server.address(), out=tmp_path / "a"))
    assert [one.trial.state for one in first.trials] == ["finished"]
    second = search(asked(trials=2, store=server.address(), out=tmp_path / "b"))
    assert [one.trial.state for one in second.trials] == ["finished", "finished"]
    assert second.trials[0].trial == first.trials[0].trial and {path.name for path in (tmp_path / "b").iterdir()} == {
        "winner.toml",
        "search.json",
        "report.html",
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"password": "wrong"}, "refuses this user or its password"), ({"name": "none"}, "no database of that name")],
)
def test_a_wrong_address_says_what_is_wrong_with_it(server: Server, changes: dict[str, str], said: str) -> None:
    with pytest.raises(ZooError, match=said) as refused:
        Store(server.address(**changes))
    assert "secret" not in str(refused.value) and "wrong@" not in str(refused.value)


def test_a_server_that_stays_away_is_an_error_and_loses_nothing(
    server: Server, asked: Callable[..., SearchOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = asked(trials=2, store=server.address(), study="away")

    def gone(job: object, **told: object) -> object:
        server.stop()
        return train_network(job, **told)  # type: ignore[arg-type]

    done = search(asked(trials=1, store=server.address(), study="away"))
    with monkeypatch.context() as patch, pytest.raises(ZooError, match="does not answer"):
        patch.setattr(store_module, "PAUSES_S", ())
        patch.setattr("train.search.claims.PAUSES_S", ())
        patch.setattr(trials_module, "train_network", gone)
        search(options)
    server.start()
    monkeypatch.setattr("train.search.claims.is_gone", lambda *told: True)  # this process has not ended
    again = search(options)
    assert again.trials[0].trial == done.trials[0].trial and [one.trial.state for one in again.trials] == [
        "finished",
        "finished",
    ]
