"""Owns which models are served under which names and versions; it opens no artifact and speaks no protocol."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from serve.core.failures import ForbiddenError, UnknownModelError
from serve.core.service import Service
from serve.core.slot import Engine
from serve.models.statistics import Statistics
from serve.regions import Regions
from zoo.visible import visible

# No path, no line break and no label of a metric can be made of it; Triton's repositories have the same names.
NAMES = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Served:
    """One version of a model at work."""

    name: str
    version: str
    service: Service
    statistics: Statistics = field(default_factory=Statistics)

    def __post_init__(self) -> None:
        self.service.slot.observe(self.statistics.observe_batch)

    def stats(self) -> dict[str, Any]:
        """One element of the protocol's `model_stats`."""
        return self.statistics.to_dict(self.name, self.version, self.service.metrics.look_ups())

    @property
    def engine(self) -> Engine:
        """The engine that the next request would get."""
        return self.service.slot.engine


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A version of a model as `/v2/repository/index` lists it; `reason` says why it is not ready."""

    name: str
    version: str
    is_ready: bool
    reason: str = ""


class Control(Protocol):
    """What can load and unload models while the server works."""

    def listed(self) -> list[Listed]:
        """Every version of every model that could be loaded."""
        ...

    async def load(self, name: str) -> None:
        """Load a model's versions as they are now; those at work go on until their successors are warm.

        Raises:
            ZooError: it cannot be loaded; what was at work still is.
        """
        ...

    async def unload(self, name: str) -> None:
        """Take a model from work; every request it has is answered first.

        Raises:
            UnknownModelError: it is not loaded.
        """
        ...


class Models:
    """The models at work, each in the versions that are loaded. Belongs to one event loop.

    Whoever finds a model and has its service admit the request before the next `await` cannot lose it to a swap.
    """

    def __init__(self, served: Iterable[Served]) -> None:
        self._served: dict[str, dict[str, Served]] = {}
        self._control: Control | None = None
        self.regions = Regions()
        for one in served:
            self._served.setdefault(one.name, {})[one.version] = one
        # What most requests ask for.
        self._newest = {name: self._served[name][self.versions(name)[-1]] for name in self._served}
        # Requests are counted for the whole server, whichever models come and go.
        self.requests = self.default.service.metrics.requests

    def __iter__(self) -> Iterator[Served]:
        for versions in self._served.values():
            yield from versions.values()

    def __len__(self) -> int:
        return sum(map(len, self._served.values()))

    @property
    def default(self) -> Served:
        """The one that is meant where none is named: the first model's newest version.

        Raises:
            UnknownModelError: none is loaded.
        """
        return self.find(next(iter(self._served), ""))

    @property
    def control(self) -> Control:
        """What loads and unloads.

        Raises:
            ForbiddenError: the server was not started to allow it.
        """
        if self._control is None:
            raise ForbiddenError(
                "Models are not loaded or unloaded here by request.",
                "Start the server with --models DIR --model-control to allow it.",
            )
        return self._control

    @property
    def can_change(self) -> bool:
        """Whether there is a `control`."""
        return self._control is not None

    def allow(self, control: Control) -> None:
        """Let `control` be used by requests."""
        self._control = control

    def versions(self, name: str) -> list[str]:
        """The versions of a model that are loaded, the oldest first."""
        return sorted(self._served.get(name, ()), key=int)

    def find(self, name: str, version: str = "") -> Served:
        """A model, in its newest version unless one is asked for.

        Raises:
            UnknownModelError: it is not loaded.
        """
        if not version and (newest := self._newest.get(name)):
            return newest
        versions = self.versions(name)
        if not versions:
            loaded = ", ".join(list(self._served)[:8]) or "none"
            raise UnknownModelError(f"There is no model {visible(name[:80])!r} here.", f"Loaded: {loaded}.")
        if version and version not in versions:
            raise UnknownModelError(
                f"The model {name} has no version {visible(version[:20])!r} here.", f"Loaded: {', '.join(versions)}."
            )
        return self._served[name][version]

    def swap(self, name: str, versions: Mapping[str, Served]) -> list[Served]:
        """Serve these versions of a model from now on; return those that were at work and are no longer."""
        old = self._served.get(name, {})
        if versions:
            self._served[name] = dict(versions)
            self._newest[name] = versions[self.versions(name)[-1]]
        else:
            self._served.pop(name, None)
            self._newest.pop(name, None)
        return [one for version, one in old.items() if versions.get(version) is not one]


def only(service: Service) -> Models:
    """The models of a server that was given one artifact: its network's name, version 1."""
    model = service.slot.engine.contract.model
    return Models([Served(name=model if NAMES.fullmatch(model) else "model", version="1", service=service)])
