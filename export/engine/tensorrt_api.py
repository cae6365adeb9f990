"""Owns the import of TensorRT in either of its two forms, and their log; it builds and runs no engine.

Only what TensorRT 10.0 to 11.4 and TensorRT-RTX 1.7 have in common is used by this package, with the same signatures.
"""

from __future__ import annotations

import importlib
from collections import deque
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from zoo.errors import MissingCapabilityError, look_up

# Severities as TensorRT numbers them: 0 internal error, 1 error, 2 warning, 3 info, 4 verbose.
WARNING = 2


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One form of TensorRT. `modules` are its import names, the first installed one counts.

    `ahead_of_time`: it builds without a GPU, for target compute capabilities that the caller may choose.
    """

    id: str
    name: str
    modules: tuple[str, ...]
    install: str
    ahead_of_time: bool


CLASSIC = Backend(
    id="tensorrt",
    name="TensorRT",
    modules=("tensorrt", "tensorrt_bindings"),
    install="pip install 'zoo[tensorrt]'",
    ahead_of_time=False,
)
RTX = Backend(
    id="tensorrt-rtx",
    name="TensorRT-RTX",
    modules=("tensorrt_rtx",),
    install="pip install 'zoo[rtx]'",
    ahead_of_time=True,
)
BACKENDS = (CLASSIC, RTX)


def find_backend(id: str) -> Backend:
    """Look a form of TensorRT up by its id.

    Raises:
        UnknownNameError: there is none; names the nearest.
    """
    return look_up({row.id: row for row in BACKENDS}, id, kind="builder", hint="`zoo export --help` lists them.")


def installed_module(backend: Backend) -> str | None:
    """The import name under which `backend` is installed; imports nothing."""
    return next((name for name in backend.modules if find_spec(name)), None)


@dataclass
class Log:
    """What TensorRT said, warnings and worse, the last thousand lines.

    A process keeps the first logger it is given and ignores every later one, so there is one per module, and a
    caller reads what was said since it started.
    """

    lines: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=1000))

    def add(self, severity: int, text: str) -> None:
        """Keep a line if it is a warning or worse."""
        if severity <= WARNING:
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


@dataclass(frozen=True)
class TensorRT:
    """An imported TensorRT: its module, its version, and the one logger of the process."""

    backend: Backend
    module: ModuleType
    version: str
    logger: Any
    log: Log


@cache
def load_tensorrt(backend: Backend) -> TensorRT:
    """Import a form of TensorRT, once per process.

    Raises:
        MissingCapabilityError: it is not installed, or its libraries cannot be loaded.
    """
    name = installed_module(backend)
    if name is None:
        raise MissingCapabilityError(f"{backend.name} is not installed.", backend.install)
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:  # a wheel whose libraries are missing raises any of these
        raise MissingCapabilityError(
            f"{backend.name} is installed but cannot be imported: {error}.", f"{backend.install} --force-reinstall"
        ) from error
    log = Log()
    return TensorRT(backend, module, str(module.__version__), _logger(module, log), log)


def _logger(module: Any, log: Log) -> Any:
    class Collector(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)  # the bindings want their own initialiser called by name

        def log(self, severity: Any, msg: str) -> None:
            log.add(int(severity), msg)

    return Collector()
