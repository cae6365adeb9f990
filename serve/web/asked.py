"""Owns the request of a prediction as its handler sees it: the framework's, with headers that are not searched for."""

from __future__ import annotations

from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Scope


class FoundHeaders(Headers):
    """The framework's headers; it goes through all of them for each that is asked for, and most of these are not there.

    Of several with one name the first is found, as there.
    """

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope=scope)
        self._found = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}

    def get(self, key: str, default: Any = None) -> Any:
        """One of them, whatever case its name is in."""
        return self._found.get(key.lower(), default)

    def __contains__(self, key: object) -> bool:
        """Whether there is one."""
        return isinstance(key, str) and key.lower() in self._found


class AskedRequest(Request):
    """The framework's request, of a prediction."""

    @property
    def headers(self) -> Headers:
        """Its headers."""
        if not hasattr(self, "_headers"):
            self._headers = FoundHeaders(self.scope)
        return self._headers
