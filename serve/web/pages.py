"""Owns the HTML pages: each is one file that loads nothing from elsewhere, put together of markup, style and script."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from starlette.responses import HTMLResponse

HEADERS = {
    # A page is one file: nothing from elsewhere may load, run, or frame it.
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}


@cache
def page_text(name: str) -> str:
    """`name`.html of serve/web/page with `name`.css and `name`.js in their places."""
    folder = files("serve.web").joinpath("page")
    style, script = (folder.joinpath(f"{name}.{kind}").read_text("utf-8") for kind in ("css", "js"))
    text = folder.joinpath(f"{name}.html").read_text("utf-8")
    return text.replace("/*{style}*/", style).replace("/*{script}*/", script)


def answer_page(name: str) -> HTMLResponse:
    """A page as an answer."""
    return HTMLResponse(page_text(name), headers=HEADERS)
