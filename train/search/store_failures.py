"""Owns what a database's failure means and what to do next, in our words; opening one and trying again are others'.

SQLite, PostgreSQL and MySQL each have words of their own, and their drivers add theirs. A row has what they have in
common, in small letters.
"""

from __future__ import annotations

import re

from zoo.errors import MissingCapabilityError, ZooError

AGAIN = "then give the same command again: it goes on."
FOR_EXAMPLE = "For example postgresql://user@host/name, or a file."
# What a database says of its own failure, what is said of it, and what to do next. The first row that fits counts.
MEANINGS: tuple[tuple[str, str, str], ...] = (
    (
        "database.* is locked",
        "is locked by another program",
        "Close what has it open; workers of a search wait for each other.",
    ),
    ("disk is full|no space left|table .* is full", "cannot grow: the disk is full", f"Make room, {AGAIN}"),
    ("disk i/o", "cannot be written: the disk fails or is full", f"Make room, {AGAIN}"),
    ("read-?only", "cannot be written to", "Change its rights, or choose another place with --store."),
    ("unable to open", "cannot be opened or made", "Choose another place with --store."),
    ("not a database", "is no database", "Choose another file with --store, or take it away."),
    ("malformed", "is damaged", "Take it away, or restore a copy; sqlite3's .recover saves what is left."),
    ("parse sqlalchemy url|invalid literal for int", "is no address of a database", FOR_EXAMPLE),
    ("can't load plugin", "is no kind of database that SQLAlchemy knows", FOR_EXAMPLE),
    ("no longer compatible", "was written by another version of Optuna", "Use that version, or another --store."),
    (
        "permission denied|denied to user|access denied .* to database",
        "lets this user make no tables",
        "Correct the name of the database, or make the user its owner.",
    ),
    (
        "authentication failed|no password supplied|no pg_hba|access denied|role .* does not exist",
        "refuses this user or its password",
        "Check both in the address: postgresql://user:password@host/name, with %40 for an @ in a password.",
    ),
    (
        "database .* does not exist|unknown database",
        "is not there: its server has no database of that name",
        "Make it first (CREATE DATABASE name), or correct the name in the address.",
    ),
    (
        "resolve host|translate host|name or service not known|name resolution|getaddrinfo|nodename nor servname",
        "is on a machine whose name nobody knows",
        "Correct the host in the address.",
    ),
    (
        "too many (clients|connections)|connection slots",
        "takes no more connections",
        "Start fewer workers, or raise max_connections of its server.",
    ),
    (
        "connection refused|can't connect|could not connect|timeout expired|timed out|server closed|shutting down|"
        "starting up|terminating connection|connection is (lost|closed)|lost connection|gone away|broken pipe|"
        "connection reset|connection to server",
        "does not answer",
        f"Start its server, or correct host and port in the address, {AGAIN}",
    ),
    ("'cryptography' package", "asks for a password in a way that needs one more package", "pip install cryptography"),
    ("unexpected keyword|invalid .*option", "has an address with something in it that its driver does not know", ""),
)
# What to install for a module that is missing; SQLAlchemy chooses it by the address, and by its own version.
DRIVERS = {
    "psycopg": "pip install 'psycopg[binary]'",
    "psycopg2": "pip install psycopg2-binary",
    "mysqldb": "pip install mysqlclient; or pip install pymysql, and write mysql+pymysql://…",
    "pymysql": "pip install pymysql",
}
ANY_DRIVER = "For PostgreSQL pip install 'psycopg[binary]'; for mysql+pymysql://… pip install pymysql."


def meaning_of(error: BaseException, store: str) -> ZooError | None:
    """A database's failure in our words; None where no row fits.

    Args:
        error: what SQLAlchemy, Optuna or a driver raised.
        store: what the store is called, without a password.
    """
    said = said_by(error)
    if isinstance(error, ImportError):
        module = next(iter(re.findall(r"No module named '(\w+)'", "\n".join(said))), "")
        missing = f"{module}, the driver of the database," if module else "The driver of the database"
        return MissingCapabilityError(f"{missing} is not installed.", DRIVERS.get(module.lower(), ANY_DRIVER))
    for pattern, problem, hint in MEANINGS:
        if re.search(pattern, "\n".join(said).lower()):
            return ZooError(f"The store {store} {problem}.", hint or said[-1])
    return None


def said_by(error: BaseException | None) -> list[str]:
    """What an error and its causes say, the first cause last."""
    said = []
    while error is not None:
        said.append(str(getattr(error, "orig", None) or error).strip() or type(error).__name__)
        error = error.__cause__
    return said
