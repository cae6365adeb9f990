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

from train.search.store_failures import meaning_of, said_by
from zoo.errors import DataError, MissingCapabilityError, ZooError
from zoo.files import check_folder
from zoo.wording import joined

if TYPE_CHECKING:
    import optuna

T = TypeVar("T")
INSTALL = "pip install '.[search]'"
# How long a worker waits for the others to let go of SQLite's one lock. A write takes milliseconds.
WAIT_S = 60.0
# A server may be started anew in the hours of a trial: what fails is tried again after such pauses. SQLite has waited
# for its lock already; there only what took long is worth more of it.
PAUSES_S = (1.0, 5.0, 20.0)
IDENTITY = "zoo_search"


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
            check_folder(Path(place).parent, option="--store")
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            address = f"sqlite:///{Path(place).absolute()}"
        self.is_file = address.startswith("sqlite")
        if self.is_file and (address == "sqlite://" or ":memory:" in address):
            raise ZooError(f"The store {place} is in memory and ends with the command.", "Give a file.")
        if self.is_file:
            options = {"connect_args": {"timeout": wait_s}}
        elif not address.startswith("mysql"):  # there Optuna does it by itself
            options = {"pool_pre_ping": True}
        with self._failures():
            self.storage: optuna.storages.RDBStorage = optuna.storages.RDBStorage(address, engine_kwargs=options)

    def close(self) -> None:
        """Close its connections."""
        self.storage.remove_session()
        self.storage.engine.dispose()

    @property
    def shown(self) -> str:
        """Where it is, without a password."""
        if "://" not in self.place:
            return self.place
        from sqlalchemy.engine import make_url

        return make_url(self.place).render_as_string(hide_password=True)

    def reach(self, access: Callable[[], T], pauses_s: Sequence[float] | None = None) -> T:
        """Call what reads or writes the database; again after each pause, while it fails.

        Args:
            access: what to call.
            pauses_s: None: those of a server, and none for a file.

        Raises:
            ZooError: it still fails.
        """
        if pauses_s is None:
            pauses_s = () if self.is_file else PAUSES_S
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
        except (
            optuna.exceptions.StorageInternalError,
            SQLAlchemyError,
            ImportError,
            RuntimeError,  # what drivers lack, and Optuna of another version
            ValueError,  # a port that is no number
            TypeError,  # something in an address that its driver does not know
        ) as error:
            meaning = meaning_of(error, self._named())
            if meaning is not None:
                raise meaning from error
            if not isinstance(error, optuna.exceptions.StorageInternalError | SQLAlchemyError):
                raise
            raise ZooError(
                f"The store {self._named()} failed: {said_by(error)[-1].splitlines()[0][:200]}",
                "These are the database's own words. If it passes, the same command goes on.",
            ) from error

    def _named(self) -> str:
        from sqlalchemy.exc import ArgumentError

        try:
            return self.shown
        except (ArgumentError, ValueError):
            return self.place.partition("://")[0] + "://…"  # what follows may hold a password


def _difference(what: str, there: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """“another space”, or “other epochs (3, here 10)” where the values are short."""
    before, now = there.get(what), asked.get(what)
    told = f" ({before}, here {now})" if len(f"{before}{now}") <= 40 else ""
    return f"another {what}{told}"
