"""Owns which models are served under which names and versions; it opens no artifact and speaks no protocol."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from serve.core.failures import UnknownModelError
from serve.core.service import Service
from serve.core.slot import Engine
from serve.models.statistics import Statistics

# No path, no line break and no label of a metric can be made of it; Triton's repositories have the same names.
NAMES = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Served:
    """One version of a model at work."""

    name: str
    version: str
    service: Service
    statistics: Statistics = field(default_factory=Statistics)

    def __post_init__(self) -> None:
        self.service.slot.observe(self.statistics.observe_batch)

    @property
    def engine(self) -> Engine:
        """The engine that the next request would get."""
        return self.service.slot.engine


class Models:
    """The models at work, each in the versions that are loaded. Belongs to one event loop."""

    def __init__(self, served: Iterable[Served]) -> None:
        self._served: dict[str, dict[str, Served]] = {}
        for one in served:
            self._served.setdefault(one.name, {})[one.version] = one

    def __iter__(self) -> Iterator[Served]:
        for versions in self._served.values():
            yield from versions.values()

    @property
    def default(self) -> Served:
        """The one that is meant where none is named: the first model's newest version.

        Raises:
            UnknownModelError: none is loaded.
        """
        return self.find(next(iter(self._served), ""))

    def versions(self, name: str) -> list[str]:
        """The versions of a model that are loaded, the oldest first."""
        return sorted(self._served.get(name, ()), key=int)

    def find(self, name: str, version: str = "") -> Served:
        """A model, in its newest version unless one is asked for.

        Raises:
            UnknownModelError: it is not loaded.
        """
        versions = self.versions(name)
        if not versions:
            loaded = ", ".join(list(self._served)[:8]) or "none"
            raise UnknownModelError(f"There is no model {name[:80]!r} here.", f"Loaded: {loaded}.")
        if version and version not in versions:
            raise UnknownModelError(
                f"The model {name} has no version {version[:20]!r} here.", f"Loaded: {', '.join(versions)}."
            )
        return self._served[name][version or versions[-1]]


def only(service: Service) -> Models:
    """The models of a server that was given one artifact: its network's name, version 1."""
    model = service.slot.engine.contract.model
    return Models([Served(name=model if NAMES.fullmatch(model) else "model", version="1", service=service)])
