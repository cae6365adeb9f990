"""Headers that are looked up are those that the framework finds."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from serve.web.asked import AskedRequest

SCOPE = {
    "type": "http",
    "headers": [
        (b"content-type", b"image/png"),
        (b"x-name", b"first"),
        (b"x-name", b"second"),
        (b"x-word", b"caf\xe9"),
    ],
}


@pytest.mark.parametrize("name", ["content-type", "Content-Type", "x-name", "x-word", "x-none"])
def test_headers_are_those_of_the_framework(name: str) -> None:
    asked, usual = AskedRequest(SCOPE).headers, Request(SCOPE).headers
    assert asked.get(name) == usual.get(name)
    assert asked.get(name, "nothing") == usual.get(name, "nothing")
    assert (name in asked) == (name in usual)


def test_headers_can_still_be_listed() -> None:
    headers = AskedRequest(SCOPE).headers
    assert headers.getlist("x-name") == ["first", "second"] and headers["x-name"] == "first"
    assert len(headers) == 4
