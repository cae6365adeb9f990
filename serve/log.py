"""Owns what a line of the server's log looks like: words for people, or JSON for programs; it logs nothing itself."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

from serve.web.access import ACCESS
from zoo.files import json_text

LogFormat = Literal["text", "json"]


class JsonLines(logging.Formatter):
    """One object a line: time, level, message, of a request its fields, of a fault its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Make the line."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = {"time": when, "level": record.levelname.lower(), "logger": record.name}
        request = getattr(record, ACCESS, None)
        fields |= {"message": record.getMessage()} if request is None else request
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json_text(fields, indent=None)


def start_log(level: str, form: LogFormat) -> None:
    """Write to stderr from here on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        # Their warnings are a line for each thing that is no HTTP or no form: whoever sends such would fill the disk.
        for library in ("uvicorn", "python_multipart"):
            logging.getLogger(library).setLevel(logging.ERROR)
