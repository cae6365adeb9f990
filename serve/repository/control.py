"""Owns how models of a folder come to work and leave it, at the start and by request, without a lost request."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from serve.core.batcher import Batcher
from serve.core.service import Limits, Service
from serve.core.slot import Slot
from serve.engine import open_engine
from serve.models.models import Listed, Models, Served
from serve.options import ServeOptions
from serve.repository.folder import ModelFolder, find_names, read_folder
from zoo.errors import ArtifactError, ZooError

logger = logging.getLogger(__name__)

LimitsOf = Callable[[ServeOptions, Batcher], Limits]


class Repository:
    """Loads the models of a folder. `options` hold for all of them; `limits_of` says what a request may cost."""

    def __init__(
        self, root: Path, options: ServeOptions, limits_of: LimitsOf, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self._root = root
        self._options = options
        self._limits_of = limits_of
        self._say = say
        self._reasons: dict[str, str] = {}
        self._changing = asyncio.Lock()

    def open_all(self) -> Models:
        """Open every model in the versions that it asks for; none is started.

        Raises:
            ZooError: there is none, or one of them cannot be opened.
        """
        names = find_names(self._root)
        if not names:
            raise ZooError(f"{self._root} has no models.", "`zoo export MODEL --triton DIR` puts one there.")
        with ExitStack() as opened:
            served = []
            for name in names:
                folder = read_folder(self._root, name)
                for version in folder.served:
                    served.append(self._open(folder, version))
                    opened.callback(served[-1].engine.close)
            opened.pop_all()
        self._models = Models(served)
        if self._options.model_control:
            self._models.allow(self)
        return self._models

    def listed(self) -> list[Listed]:
        """Every version of every model in the folder, and those at work that have left it."""
        found: dict[tuple[str, str], Served | None] = {(served.name, served.version): served for served in self._models}
        for name in find_names(self._root):
            try:
                found |= {
                    (name, version): found.get((name, version)) for version in read_folder(self._root, name).artifacts
                }
            except ZooError as error:
                self._reasons[name] = error.problem
                found.setdefault((name, ""), None)
        return [self._listed(name, version, served) for (name, version), served in sorted(found.items())]

    async def load(self, name: str) -> None:
        """As `serve.models.models.Control` says."""
        async with self._changing:
            try:
                folder = read_folder(self._root, name)
                fresh = await asyncio.to_thread(self._open_warm, folder, self._at_work(name))
            except ZooError as error:
                error.problem, error.hint = self._without_paths(error.problem), self._without_paths(error.hint)
                self._reasons[name] = error.problem
                raise
            self._reasons.pop(name, None)
            await self._retire(self._models.swap(name, fresh))
            logger.warning("Serving %s in version %s.", name, ", ".join(fresh))

    async def unload(self, name: str) -> None:
        """As `serve.models.models.Control` says."""
        async with self._changing:
            self._models.find(name)
            self._reasons[name] = "unloaded"
            await self._retire(self._models.swap(name, {}))
            logger.warning("No longer serving %s.", name)

    def _listed(self, name: str, version: str, served: Served | None) -> Listed:
        reason = self._reasons.get(name, "not asked for by its version_policy, or newer than the last load")
        if served is not None:
            unavailable = served.service.not_ready()
            reason = unavailable.problem if unavailable else ""
        return Listed(name=name, version=version, is_ready=not reason, reason=reason)

    def _without_paths(self, text: str) -> str:
        """A text for clients, who are told names within the folder and not where that is."""
        for path in filter(None, (self._root / "x", self._options.require_signature)):
            text = text.replace(f"{path.parent}{os.sep}", "")
        return text

    def _at_work(self, name: str) -> dict[str, Served]:
        return {served.version: served for served in self._models if served.name == name}

    def _open_warm(self, folder: ModelFolder, at_work: dict[str, Served]) -> dict[str, Served]:
        """The versions a model asks for, warm: those at work as they are, the others opened. Blocks."""
        with ExitStack() as opened:
            chosen = {}
            for version in folder.served:
                if version in at_work:
                    chosen[version] = at_work[version]
                    continue
                fresh = chosen[version] = self._open(folder, version)
                opened.callback(fresh.engine.close)
                fresh.engine.batcher.start()
                try:
                    fresh.engine.batcher.warmed.result()
                except Exception as error:  # anything that an engine raises; what was at work goes on
                    raise ArtifactError(
                        f"Version {version} of {folder.name} failed its warm-up: {error}", "What was at work still is."
                    ) from error
            opened.pop_all()
        return chosen

    def _open(self, folder: ModelFolder, version: str) -> Served:
        given = self._options
        options = replace(
            given,
            engine=str(folder.artifacts[version]),
            models=None,
            max_batch_size=given.max_batch_size or folder.max_batch_size,
            # An export writes 1; how many suit this machine is the server's to choose, unless the owner wrote more.
            instances=given.instances or (folder.instances if (folder.instances or 1) > 1 and not given.tune else None),
            max_queue_delay_ms=given.max_queue_delay_ms or folder.max_queue_delay_ms or 0.0,
        )
        engine = open_engine(options, self._say)
        service = Service(Slot(engine), self._limits_of(options, engine.batcher))
        return Served(name=folder.name, version=version, service=service)

    @staticmethod
    async def _retire(retired: list[Served]) -> None:
        for served in retired:
            await asyncio.to_thread(served.service.slot.retire, served.engine)
            await asyncio.to_thread(served.service.drain)
