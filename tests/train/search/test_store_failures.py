"""What databases and their drivers say of their failures, in the zoo's words; the sentences were said by real ones."""

from __future__ import annotations

import pytest

from train.search.store_failures import meaning_of
from zoo.errors import MissingCapabilityError

FAILED = 'connection failed: connection to server at "127.0.0.1", port 5432 failed: '


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("database is locked", "is locked"),
        ("database or disk is full", "the disk is full"),
        ('could not extend file "base/1/2": No space left on device', "the disk is full"),
        ("attempt to write a readonly database", "cannot be written to"),
        ("cannot execute INSERT in a read-only transaction", "cannot be written to"),
        (f'{FAILED}FATAL:  password authentication failed for user "zoo"', "refuses this user"),
        (f"{FAILED}fe_sendauth: no password supplied", "refuses this user"),
        (f'{FAILED}FATAL:  database "nodb" does not exist', "no database of that name"),
        (f"{FAILED}FATAL:  sorry, too many clients already", "takes no more connections"),
        (f"{FAILED}Connection refused\n\tIs the server running on that host?", "does not answer"),
        ("terminating connection due to administrator command", "does not answer"),
        ("server closed the connection unexpectedly", "does not answer"),
        ("permission denied for schema public", "lets this user make no tables"),
        ("failed to resolve host 'nosuch': [Errno -2] Name or service not known", "whose name nobody knows"),
        ("(1045, \"Access denied for user 'zoo'@'localhost' (using password: YES)\")", "refuses this user"),
        ("(1044, \"Access denied for user 'zoo'@'%' to database 'nodb'\")", "lets this user make no tables"),
        ("(1049, \"Unknown database 'nodb'\")", "no database of that name"),
        (
            "(2003, \"Can't connect to MySQL server on '127.0.0.1' ([Errno 111] Connection refused)\")",
            "does not answer",
        ),
        (
            "(2003, \"Can't connect to MySQL server on 'nosuch' ([Errno -2] Name or service not known)\")",
            "nobody knows",
        ),
        ("(2013, 'Lost connection to MySQL server during query')", "does not answer"),
        ("'cryptography' package is required for sha256_password auth methods", "needs one more package"),
    ],
)
def test_a_failure_is_told_with_what_to_do(said: str, told: str) -> None:
    meaning = meaning_of(RuntimeError(said), "db")
    assert meaning and told in meaning.problem and meaning.hint


def test_what_nobody_knows_is_left_to_its_own_words() -> None:
    assert meaning_of(RuntimeError("the sampler is empty"), "db") is None


@pytest.mark.parametrize(
    ("module", "package"),
    [("psycopg", "psycopg[binary]"), ("psycopg2", "psycopg2-binary"), ("MySQLdb", "pymysql"), ("other", "psycopg")],
)
def test_a_missing_driver_is_named_with_its_own_package(module: str, package: str) -> None:
    error = ImportError("Failed to import DB access module for the specified storage URL.")
    error.__cause__ = ModuleNotFoundError(f"No module named '{module}'")
    meaning = meaning_of(error, "db")
    assert isinstance(meaning, MissingCapabilityError) and module in meaning.problem and package in str(meaning.hint)
