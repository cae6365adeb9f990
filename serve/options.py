"""Owns what `zoo serve` can be told, with its defaults; light to import, so that `--help` stays quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoo.machine import Device


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `zoo serve` was asked for; None leaves the choice to the engine's device."""

    engine: str
    host: str = "127.0.0.1"
    port: int = 8080
    device: Device = "auto"
    instances: int = 1
    threads: int | None = None
    max_batch_size: int | None = None
    queue_capacity: int | None = None
    max_queue_delay_ms: float = 0.0
    timeout_ms: float = 10_000.0
    max_body_mb: float = 20.0
    drain_seconds: float = 10.0
