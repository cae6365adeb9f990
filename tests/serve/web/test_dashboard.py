"""The dashboard of examples/grafana asks only for metrics and labels that a server has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

DASHBOARD = Path(__file__).parents[3] / "examples" / "grafana" / "zoo-serve.json"


def test_every_metric_and_label_of_the_dashboard_is_served(server: Any, fake: Any) -> None:
    server.post(fake.png(3))
    server.post(b"no picture")
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(server.client.get("/metrics").text):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(queries) > len(panels) > 8
    for query in queries:
        names = set(re.findall(r"\b(?:zoo|process)_\w+", query))
        assert names <= labels.keys(), query
        grouped = {label.strip() for by in re.findall(r"by \(([\w, ]+)\)", query) for label in by.split(",")}
        assert grouped <= set().union(*(labels[name] for name in names)), query


def test_its_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and all(x < 24 for x, _ in cells)
        taken |= cells
