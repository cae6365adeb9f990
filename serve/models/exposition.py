"""Owns `/metrics` of several models: the same families, once each, their samples told apart by model and version."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Metric, generate_latest
from prometheus_client.registry import Collector

from serve.models.models import Models

# Facts of the process, the same whichever model tells them.
OF_THE_PROCESS = "process_"


def render(models: Models) -> bytes:
    """Every model's metrics in Prometheus' text format; of a single model as it tells them itself."""
    if len(models) == 1:
        return next(iter(models)).service.metrics.render()
    return generate_latest(_Merged(models))


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
