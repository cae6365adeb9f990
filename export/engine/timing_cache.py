"""Owns the file of TensorRT's measurements that one build lends the next; it knows no network.

Most of a build is trying kernels. With the measurements of an earlier build of the same layers, users saw 565 s become
11 s. They are of one release of TensorRT and one model of GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.engine.tensorrt_api import WARNING, TensorRT
from zoo.errors import ZooError
from zoo.files import write_bytes


@dataclass(frozen=True)
class Lent:
    """A timing cache in use: its file, the file's bytes when it was read, and TensorRT's object."""

    path: Path
    data: bytes
    cache: Any  # must live as long as the build


def lend_timings(tensorrt: TensorRT, config: Any, path: Path) -> Lent:
    """Let a build use the measurements of a file; a file that is not there yet is begun.

    Raises:
        ZooError: the file cannot be read, or is of another release or GPU: it is left as it is.
    """
    data = _read(path)
    before = len(tensorrt.log.problems())
    cache = config.create_timing_cache(data)
    taken = cache is not None and config.set_timing_cache(cache, False)
    # Of bytes it cannot use, TensorRT says so in its log, and goes on with an empty cache that would replace them.
    said = tensorrt.log.problems()[before:]
    if not taken or (data and said):
        here = f"{tensorrt.builder.name} {tensorrt.version} on this GPU"
        raise ZooError(
            f"{path} has no timings for {here}. {' '.join(said)}".strip(),
            "Name another file with --timing-cache, one for each release of TensorRT and model of GPU.",
        )
    return Lent(path, data, cache)


def store_timings(tensorrt: TensorRT, config: Any, lent: Lent) -> None:
    """Write what the file had and what this build measured, whole or not at all.

    What another build wrote meanwhile is kept. Two that write in the same instant lose the measurements of one, which
    the next build makes again. A file that cannot be written is a warning in TensorRT's log: the plan took longer to
    make than the measurements are worth.
    """
    cache = config.get_timing_cache()
    try:
        meanwhile = _read(lent.path)
        if meanwhile != lent.data and not cache.combine(config.create_timing_cache(meanwhile), False):
            raise ZooError(f"{lent.path.name} was replaced by timings of another TensorRT or GPU during the build.")
        write_bytes(lent.path, bytes(cache.serialize()))
    except ZooError as error:
        tensorrt.log.add(WARNING, f"The timings of this build were not kept: {error.problem}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ZooError(f"Cannot read {path}: {error.strerror}.", "--timing-cache names a file.") from error
