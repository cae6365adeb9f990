"""Owns the database that trials are kept in: how it is opened, whose search it holds, and what its failures mean.

The tables are Optuna's, so that its own tools and dashboard read them. What a row of it means is `claims.py`'s.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zoo.errors import DataError, MissingCapabilityError, ZooError
from zoo.files import check_folder
from zoo.wording import joined

if TYPE_CHECKING:
    import optuna

T = TypeVar("T")
INSTALL = "pip install '.[search]'"
# How long a worker waits for the others to let go of SQLite's one lock. A write takes milliseconds.
WAIT_S = 60.0
# A connection to a server may break in the hours of a trial: what a trial reached is written again after such pauses.
PAUSES_S = (1.0, 5.0, 20.0)
IDENTITY = "zoo_search"
# What a database says of its own failure, what is said of it, and what to do next.
MESSAGES: tuple[tuple[str, str, str], ...] = (
    ("locked", "is locked by another program", "Close what has it open; workers of a search wait for each other."),
    ("full", "cannot grow: the disk is full", "Make room, then give the same command again: it goes on."),
    ("disk i/o", "cannot be written: the disk fails or is full", "Make room, then give the same command again."),
    ("readonly", "cannot be written to", "Change its rights, or choose another place with --store."),
    ("unable to open", "cannot be opened or made", "Choose another place with --store."),
    ("not a database", "is no database", "Choose another file with --store, or take it away."),
    ("malformed", "is damaged", "Take it away, or restore a copy; sqlite3's .recover saves what is left."),
    ("parse sqlalchemy url", "is no address of a database", "For example postgresql://user@host/name, or a file."),
    ("can't load plugin", "is no kind of database that SQLAlchemy knows", "For example postgresql://user@host/name."),
    ("no longer compatible", "was written by another version of Optuna", "Use that version, or another --store."),
)


def need_optuna() -> None:
    """Check that Optuna is there, and silence its log: what it has to say is said in the zoo's words.

    Raises:
        MissingCapabilityError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingCapabilityError("`zoo search` needs Optuna, which is not installed.", INSTALL) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class Store:
    """A database of searches. Every access goes through `reach`, so that every failure is told in the same words."""

    def __init__(self, place: str, *, wait_s: float = WAIT_S) -> None:
        """Open a database, or make it.

        Args:
            place: a file, which is SQLite's, or an address of a server.
            wait_s: how long to wait for SQLite's lock.

        Raises:
            ZooError: it cannot be opened; says why.
        """
        need_optuna()
        import optuna

        self.place = place
        address, options = place, dict[str, Any]()
        if "://" not in place:
            check_folder(Path(place).parent)
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            address = f"sqlite:///{Path(place).absolute()}"
        if address.startswith("sqlite"):
            options = {"connect_args": {"timeout": wait_s}}
        elif not address.startswith("mysql"):  # there Optuna does it by itself
            options = {"pool_pre_ping": True}
        with self._failures():
            self.storage: optuna.storages.RDBStorage = optuna.storages.RDBStorage(address, engine_kwargs=options)

    @property
    def shown(self) -> str:
        """Where it is, without a password."""
        if "://" not in self.place:
            return self.place
        from sqlalchemy.engine import make_url

        return make_url(self.place).render_as_string(hide_password=True)

    def reach(self, access: Callable[[], T], pauses_s: Sequence[float] = ()) -> T:
        """Call what reads or writes the database; again after each pause, while it fails.

        Raises:
            ZooError: it still fails.
        """
        for pause_s in pauses_s:
            try:
                with self._failures():
                    return access()
            except ZooError:
                time.sleep(pause_s)
        with self._failures():
            return access()

    def study(self, name: str, directions: Sequence[str], identity: Mapping[str, Any]) -> optuna.study.Study:
        """The search of that name: made where there is none.

        Args:
            name: of the search.
            directions: of what its sampler looks at: "maximize" or "minimize".
            identity: what must be equal for its trials to be comparable, plain JSON types by their names.

        Raises:
            ZooError: there is one of another space, other pictures or another training; names what differs.
        """
        import optuna

        asked = json.loads(json.dumps(identity))
        wanted = [optuna.study.StudyDirection[direction.upper()] for direction in directions]
        study: optuna.study.Study = self.reach(
            lambda: optuna.create_study(storage=self.storage, study_name=name, directions=wanted, load_if_exists=True)
        )
        there = self.reach(lambda: study.user_attrs.get(IDENTITY))
        if there is None and self.reach(lambda: study.get_trials(deepcopy=False)):
            raise DataError(
                f"{self.shown} has a study {name} that is no search of the zoo.", "Choose another --study or --store."
            )
        if there is None:
            self.reach(lambda: study.set_user_attr(IDENTITY, asked))
            there = asked
        changed = [what for what in {**asked, **there} if asked.get(what) != there.get(what)]
        if changed:
            raise DataError(
                f"{self.shown} holds a search with {joined(_difference(what, there, asked) for what in changed)}.",
                "Give the options of that search again, or begin another one with --study, --store or --out.",
            )
        return study

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Tell a database's failure in our words.

        Raises:
            ZooError: it failed.
        """
        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except ImportError as error:
            raise MissingCapabilityError(
                f"The driver of the database is not installed: {str(error).rstrip('.')}.",
                "pip install psycopg2-binary for PostgreSQL, or pymysql for mysql+pymysql://….",
            ) from error
        except (optuna.exceptions.StorageInternalError, SQLAlchemyError, RuntimeError) as error:
            said = _all_said(error)
            for sign, problem, hint in MESSAGES:
                if sign in said.lower():
                    raise ZooError(f"The store {self._named()} {problem}.", hint) from error
            if isinstance(error, RuntimeError):
                raise
            last = said.splitlines()[-1][:200]
            raise ZooError(f"The store {self._named()} failed: {last}", "Is its server there? Try again.") from error

    def _named(self) -> str:
        from sqlalchemy.exc import ArgumentError

        try:
            return self.shown
        except ArgumentError:
            return self.place.partition("://")[0] + "://…"  # what follows may hold a password


def _difference(what: str, there: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """“another space”, or “other epochs (3, here 10)” where the values are short."""
    before, now = there.get(what), asked.get(what)
    told = f" ({before}, here {now})" if len(f"{before}{now}") <= 40 else ""
    return f"another {what}{told}"


def _all_said(error: BaseException | None) -> str:
    """What an error and its causes say, the first cause last."""
    said = []
    while error is not None:
        said.append(str(getattr(error, "orig", None) or error).strip() or type(error).__name__)
        error = error.__cause__
    return "\n".join(said)
