"""Owns what wraps the bytes of a request: compression and forms, undone within bounds; no pixels, no routes."""

from __future__ import annotations

import sys
import zlib
from typing import Any, NamedTuple

from python_multipart import FormParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from serve.core.failures import MediaTypeError, ParameterError, TooLargeError

# zlib's window bits for each encoding; "deflate" is zlib's own format (RFC 9110, section 8.4.1.2).
WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
FORM = "multipart/form-data"


def decompress(body: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """A body as it was before its `Content-Encoding`; never more than `max_bytes` are made of it.

    Raises:
        MediaTypeError: another encoding than gzip and deflate. TooLargeError: more than `max_bytes`.
        ParameterError: it is not of that encoding, or ends early.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in WINDOW_BITS:
        raise MediaTypeError(
            f"The body is encoded as {encoding[:40]!r}; expected gzip, deflate or nothing.",
            "Send it as it is: a picture is compressed already.",
        )
    decoder = zlib.decompressobj(WINDOW_BITS[encoding])
    try:
        content = decoder.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise ParameterError(f"The body is not {encoding}: {error}.", "Leave Content-Encoding out.") from error
    if len(content) > max_bytes:
        raise TooLargeError(
            f"The body is larger than {max_bytes / 1e6:g} MB once it is decompressed.",
            "Send less at once, or start the server with a larger --max-body-mb.",
        )
    if not decoder.eof or decoder.unused_data:
        wrong = "goes on after its end" if decoder.eof else "ends early"
        raise ParameterError(f"The body's {encoding} {wrong}.", "Compress it anew, whole, or send it as it is.")
    return content


class File(NamedTuple):
    """A file of a form; whatever name the client gave it, or none."""

    name: str
    content: bytes


def take_files(body: bytes, content_type: str, *, most: int, example: str) -> list[File]:
    """The files in a form, as `curl -F file=@PICTURE` sends them; fields that are no file are passed over.

    Raises:
        ParameterError: no form, no file, or more than `most`. `example` says how to send one.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise ParameterError("The form has no boundary.", example)
    files: list[Any] = []
    # The body is in memory already and bounded: nothing is put on the disk.
    config = {"MAX_MEMORY_FILE_SIZE": sys.maxsize}
    try:
        parser = FormParser(FORM, None, files.append, boundary=boundary, config=config)
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise ParameterError(f"The form cannot be read: {error}", example) from error
    if not 1 <= len(files) <= most:
        raise ParameterError(f"The form has {len(files) or 'no'} files; expected 1 to {most}.", example)
    return [_read(file) for file in files]


def _read(file: Any) -> File:
    file.file_object.seek(0)
    return File((file.file_name or b"").decode("utf-8", "replace"), file.file_object.read())
