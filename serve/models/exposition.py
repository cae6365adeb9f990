"""Owns `/metrics` of several models: the same families, once each, their samples told apart by model and version."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from prometheus_client import Metric, generate_latest
from prometheus_client.registry import Collector

from serve.models.models import Models

# Facts of the process, the same whichever model tells them.
OF_THE_PROCESS = "process_"


def render(models: Models) -> bytes:
    """Every model's metrics in Prometheus' text format; of a single model as it tells them itself."""
    if len(models) == 1:
        return next(iter(models)).service.metrics.render()
    return generate_latest(_Merged(models)) + "".join(_triton(models)).encode()


def _triton(models: Models) -> Iterator[str]:
    """Triton's names of all models: a family's samples stand together, behind its two comments."""
    each = [
        [
            line
            for part in served.service.metrics.triton_lines(served.name, served.version)
            for line in part.splitlines()
        ]
        for served in models
    ]
    families: dict[str, list[str]] = {}
    for line in itertools.chain(*each):
        name = line.split()[2] if line.startswith("#") else line.partition("{")[0]
        lines = families.setdefault(name, [])
        if line not in lines:
            lines.append(line)
    for lines in families.values():
        yield from (f"{line}\n" for line in sorted(lines, key=lambda line: not line.startswith("#")))


class _Merged(Collector):
    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterable[Metric]:
        families = {family.name: family for family in self._models.requests.collect()}
        counted = set(families)
        for served in self._models:
            own = {"model": served.name, "version": served.version}
            for found in served.service.metrics.collect():
                if found.name in counted:
                    continue
                told = {} if found.name.startswith(OF_THE_PROCESS) else own
                if not told and found.name in families:
                    continue
                family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                for sample in found.samples:
                    family.add_sample(sample.name, sample.labels | told, sample.value)
        return families.values()
