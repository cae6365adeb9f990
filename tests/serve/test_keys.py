"""Keys: which are taken, from where, for what; and that none is ever shown."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from serve.core.failures import ForbiddenError, UnauthorizedError
from serve.keys import EVERYBODY, Keyring, read_keys, role_for
from zoo.errors import ZooError

USE, MANAGE = "u" * 22, "m" * 30


@pytest.fixture
def keys(tmp_path: Path) -> Keyring:
    path = tmp_path / "keys"
    path.write_text(f"# of the team\npredict {USE}\n\n  manage {MANAGE}  # rotated in May\n")
    return read_keys(path, {})


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {USE}"},
        {"authorization": f"bearer  {USE}"},
        {"authorization": f"Basic {base64.b64encode(f'anyone:{USE}'.encode()).decode()}"},
        {"x-api-key": USE},
    ],
)
def test_a_key_is_taken_in_three_forms(keys: Keyring, headers: dict[str, str]) -> None:
    keys.check(headers, "predict")
    with pytest.raises(ForbiddenError, match="role manage"):
        keys.check(headers, "manage")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": f"Bearer {USE}x"},
        {"authorization": f"Digest {USE}"},
        {"authorization": "Basic ???"},
        {"authorization": "Basic Yÿÿ"},
        {"authorization": "Basic " + base64.b64encode(USE.encode()).decode()},
        {"x-api-key": ""},
        {"x-api-key": "\udcff" * 30},
    ],
)
def test_what_is_no_key_is_not_let_in(keys: Keyring, headers: dict[str, str]) -> None:
    with pytest.raises(UnauthorizedError):
        keys.check(headers, "predict")


def test_a_managing_key_may_do_everything(keys: Keyring) -> None:
    for role in ("predict", "manage"):
        keys.check({"x-api-key": MANAGE}, role)


def test_keys_come_from_the_environment_too() -> None:
    keys = read_keys(None, {"ZOO_SERVE_KEYS": f"predict {USE}, manage {MANAGE}"})
    keys.check({"x-api-key": USE}, "predict")
    assert not read_keys(None, {}) and keys
    EVERYBODY.check({}, "manage")


def test_no_key_is_kept_or_shown(keys: Keyring) -> None:
    assert USE not in repr(keys) and MANAGE not in repr(keys)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no key"),
        ("# nothing\n", "has no key"),
        (USE, "line 1 of .* is not a role and a key"),
        (f"predict {USE}\nadmin {MANAGE}", "line 2"),
        ("predict short", "can be guessed"),
    ],
)
def test_a_file_that_is_no_keys_is_told_without_them(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ZooError, match=said) as caught:
        read_keys(tmp_path / "keys", {})
    for secret in (USE, MANAGE, "short"):
        assert secret not in str(caught.value).replace("shorter", "")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="cannot be read"):
        read_keys(tmp_path / "missing", {})


@pytest.mark.parametrize(
    ("call", "role"),
    [
        ("/healthz", None),
        ("/v2/health/ready", None),
        ("ServerLive", None),
        ("/", "predict"),
        ("/metrics", "predict"),
        ("/healthz/", "predict"),
        ("/v2/health/ready/../../repository/models/a/load", "predict"),  # no such route: paths are not folded
        ("/v2/repository/models/a/load", "manage"),
        ("RepositoryModelUnload", "manage"),
        ("ModelInfer", "predict"),
    ],
)
def test_which_role_a_call_needs(call: str, role: str | None) -> None:
    assert role_for(call) == role
