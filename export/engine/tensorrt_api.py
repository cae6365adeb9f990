"""Owns the import of TensorRT in either of its two forms, and their log; it builds and runs no engine.

This package uses only what TensorRT 10.0 to 11.4 and TensorRT-RTX 1.7 have in common, with the same signatures.
"""

from __future__ import annotations

import importlib
from collections import deque
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from export.engine.builders import Builder
from zoo.errors import MissingCapabilityError

# Severities as TensorRT numbers them: 0 internal error, 1 error, 2 warning, 3 info, 4 verbose.
WARNING, INFO = 2, 3
SEVERITIES = ("internal error", "error", "warning", "info")
KEPT_LINES = 10_000  # a build says some hundred; a server that runs for months says more than it should keep


def installed_module(builder: Builder) -> str | None:
    """The import name under which `builder` is installed; imports nothing."""
    return next((name for name in builder.modules if find_spec(name)), None)


@dataclass
class Log:
    """What TensorRT said, except what is only for its makers (verbose): the last ten thousand lines.

    TensorRT keeps the first logger of a process and ignores every later one. So there is one log per module, and a
    caller clears it before the work whose messages it wants.
    """

    lines: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))

    def add(self, severity: int, text: str) -> None:
        """Keep a line unless it is verbose."""
        if severity <= INFO:
            self.lines.append((severity, " ".join(text.split())))

    def clear(self) -> None:
        """Forget everything said so far."""
        self.lines.clear()

    def errors(self) -> str:
        """The errors, one after the other; a plain sentence where there were none."""
        said = [text for severity, text in self.lines if severity < WARNING]
        return " ".join(dict.fromkeys(said)) or "It gave no reason."

    def warnings(self) -> tuple[str, ...]:
        """The warnings, each once."""
        return tuple(dict.fromkeys(text for severity, text in self.lines if severity == WARNING))

    def problems(self) -> list[str]:
        """Warnings and errors, in the order said."""
        return [text for severity, text in self.lines if severity <= WARNING]

    def text(self) -> str:
        """All of it for people, a line each: “warning: …”."""
        return "".join(f"{SEVERITIES[severity]}: {text}\n" for severity, text in self.lines)


@dataclass(frozen=True)
class TensorRT:
    """An imported TensorRT: its module, its version, and the one logger of the process."""

    builder: Builder
    module: ModuleType
    version: str
    logger: Any
    log: Log


@cache
def load_tensorrt(builder: Builder) -> TensorRT:
    """Import a form of TensorRT, once per process.

    Raises:
        MissingCapabilityError: it is not installed, or its libraries cannot be loaded.
    """
    name = installed_module(builder)
    if name is None:
        raise MissingCapabilityError(f"{builder.name} is not installed.", builder.install)
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:  # a wheel whose libraries are missing raises any of these
        raise MissingCapabilityError(
            f"{builder.name} is installed but cannot be imported: {error}.", f"{builder.install} --force-reinstall"
        ) from error
    log = Log()
    return TensorRT(builder, module, str(module.__version__), _logger(module, log), log)


def _logger(module: Any, log: Log) -> Any:
    class Collector(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)  # the bindings want their own initialiser called by name

        def log(self, severity: Any, msg: str) -> None:
            log.add(int(severity), msg)

    return Collector()
