"""Owns which characters of a name may be shown: to a terminal they could be commands. It reads and writes nothing."""

from __future__ import annotations

import re

# Controls (of C1, \\x9b alone begins a terminal's command), halves of surrogate pairs (bytes of a file's name that are
# not UTF-8), line and paragraph separators, and what turns the direction of all that follows. Joiners stay: Persian
# and Hindi words and emoji have them; and so do the spaces of other scripts.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# The same, but for what JSON, tables and messages of several lines are made of.
_HIDDEN_IN_LINES = re.compile(_HIDDEN.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))


def visible(name: str) -> str:
    """A name that any terminal, page and JSON can show, on one line: what it hides is written as escapes."""
    if name.isprintable():  # every picture's name comes this way in every epoch
        return name
    return _HIDDEN.sub(_escape, name)


def visible_lines(text: str) -> str:
    """`visible` of a text that may have lines and tabs."""
    return text if text.isprintable() else _HIDDEN_IN_LINES.sub(_escape, text)


def json_escaped(text: str) -> str:
    r"""JSON as text, in which what is hidden is written as JSON itself writes it: \u009b."""
    return text if text.isprintable() else _HIDDEN_IN_LINES.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python keeps it
        code -= 0xDC00
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(match[0], f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
