"""Owns who may do what, and how often: keys with roles, read once, compared in constant time, never shown; no protocol.

A file has one key a line, behind its role: `predict KEY` or `manage KEY`; `#` begins a comment. The variable
ZOO_SERVE_KEYS has the same, with commas between. Only digests are kept.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serve.core.failures import ForbiddenError, UnauthorizedError
from serve.rate import RateLimit
from zoo.errors import ZooError

Role = Literal["predict", "manage"]
ROLES: tuple[Role, ...] = ("predict", "manage")
VARIABLE = "ZOO_SERVE_KEYS"
# 22 characters of base64 are 128 bits: what cannot be tried out.
LEAST_LENGTH = 22
MAKE = "`openssl rand -base64 24` makes one."


@dataclass(frozen=True)
class Keyring:
    """Digests of the keys with their roles; without any, everything is allowed to everybody, as often as `rate` allows.

    `rate` counts by key; where there are none, by the client's address.
    """

    digests: tuple[tuple[bytes, Role], ...] = ()
    rate: RateLimit | None = None

    def __bool__(self) -> bool:
        return bool(self.digests)

    @property
    def is_open(self) -> bool:
        """Whether everybody may do everything, as often as they like: there is nothing to check."""
        return not self.digests and self.rate is None

    def check(self, headers: Mapping[str, str], role: Role, address: str = "") -> bytes:
        """Allow a request by its headers, named in lower case: `authorization` (Bearer, Basic) or `x-api-key`.

        A browser asks for name and password by itself: any name, the key as password.

        Args:
            address: the client's.

        Returns:
            Who asks: the digest of the key, nothing where there are none.

        Raises:
            UnauthorizedError: no key, or none of these. ForbiddenError: one of another role. RateLimitedError: too many
                requests.
        """
        holder = self._identify(headers, role) if self.digests else b""
        if self.rate:
            self.rate.take(holder or address)
        return holder

    def _identify(self, headers: Mapping[str, str], role: Role) -> bytes:
        """The digest of the key that a request has."""
        presented = hashlib.sha256(_presented(headers).encode("utf-8", "surrogateescape")).digest()
        # All are compared, whichever matches: the time says nothing of the keys.
        found = [own for digest, own in self.digests if hmac.compare_digest(digest, presented)]
        if not found:
            raise UnauthorizedError("A key is needed.", "Send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`.")
        if role == "manage" and "manage" not in found:
            raise ForbiddenError("This key may not change what is served.", "Use one with the role manage.")
        return presented


EVERYBODY = Keyring()


def read_keys(path: Path | None, environment: Mapping[str, str], rate_limit: float | None = None) -> Keyring:
    """The keys of a file and of the environment; none where neither has any.

    Args:
        rate_limit: requests a second of one client; None: no limit.

    Raises:
        ZooError: a file that cannot be read or has no key, a role that is none, or a key that is too short.
    """
    digests = tuple(_read(where, words) for where, words in _told(path, environment))
    if path is not None and not digests:
        raise ZooError(f"{path} has no key.", f"One `predict KEY` a line. {MAKE}")
    return Keyring(digests, RateLimit(rate_limit) if rate_limit else None)


def first_key(path: Path | None, environment: Mapping[str, str]) -> str | None:
    """The first key of a file and of the environment, to ask a server that reads the same; None where there is none.

    Raises:
        ZooError: as `read_keys`.
    """
    for where, words in _told(path, environment):
        _read(where, words)
        return words[1]
    return None


def _told(path: Path | None, environment: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Where each key stands, with the words that stand there."""
    lines: list[tuple[str, str]] = []
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            hint = f"One `predict KEY` a line. {MAKE}"
            raise ZooError(f"The keys of {path} cannot be read: {error}.", hint) from error
        lines = [(f"line {number} of {path}", line) for number, line in enumerate(text.splitlines(), 1)]
    lines += [(VARIABLE, part) for part in environment.get(VARIABLE, "").split(",")]
    told = [(where, line.partition("#")[0].split()) for where, line in lines]
    return [(where, words) for where, words in told if words]


def _read(where: str, words: list[str]) -> tuple[bytes, Role]:
    role = next((role for role in ROLES if role == words[0]), None)
    if role is None or len(words) != 2:
        raise ZooError(f"{where} is not a role and a key.", f"`predict KEY` or `manage KEY`. {MAKE}")
    if len(words[1]) < LEAST_LENGTH:
        raise ZooError(f"The key of {where} is shorter than {LEAST_LENGTH} characters: it can be guessed.", MAKE)
    return hashlib.sha256(words[1].encode()).digest(), role


def _presented(headers: Mapping[str, str]) -> str:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode("utf-8", "replace").partition(":")[2]
        except ValueError:
            return ""
    return headers.get("x-api-key", "")


# Paths of HTTP, and calls of gRPC, that whoever looks after a server asks without a key: they say only that it works.
OPEN = re.compile(r"/(healthz|readyz|v2/health/(live|ready))|ServerLive|ServerReady|Check")
MANAGING = re.compile(r"/v2/repository/models/.*|RepositoryModel(Load|Unload)")


def role_for(call: str) -> Role | None:
    """Which role a path of HTTP or a call of gRPC needs; None: none."""
    if OPEN.fullmatch(call):
        return None
    return "manage" if MANAGING.fullmatch(call) else "predict"
