"""Owns the tables of JSON in docs/json.md and of metrics in docs/serving.md: from what tests/test_formats.py records.

The record is of real objects, so the tables are too. Making them runs nothing.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

from made.markdown import code, table, table_with_words
from zoo.wording import joined

GOLDEN = Path(__file__).parents[2] / "tests" / "golden"
# Where an object that stands within others is described.
LINKS = {
    "network": "your-own-network.md",
    "recipe": "training.md#of-the-run",
    "training stage": "training.md#per-stage",
    "epoch": "watching.md#metricsjsonl",
    "result": "#results",
}


def fields(rest: str, body: str) -> str:
    """`format zoo list`: a line for each of its fields; `format zoo bench latency without data`: but for those."""
    name, _, without = rest.partition(" without ")
    rows = [
        [code(path), joined(map(link, types), "or")]
        for path, types in record()[name].items()
        if re.split(r"[.\[]", path)[0] not in without.split()
    ]
    return table_with_words(["field", "type", ""], rows, body, optional=True)


def record() -> dict[str, dict[str, list[str]]]:
    """{format: {path: types}}, all records together."""
    together: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(GOLDEN.glob("formats*.json")):
        for name, shape in json.loads(path.read_text(encoding="utf-8")).items():
            for field, types in shape.items():
                known = together[name][field]
                known += [kind for kind in types.split(" or ") if kind not in known]
                known.sort(key="none".__eq__)
    return together


def link(kind: str) -> str:
    """A type in words; of an object that is described elsewhere, a link to it."""
    if not kind.startswith("<"):
        return {"empty list": "list", "empty dict": "object", "none": "null"}.get(kind, kind)
    name = kind.strip("<>")
    return f"[{name}]({LINKS.get(name) or '#' + name.replace(' ', '-')})"


def metrics(rest: str, body: str) -> str:
    """Every metric with its labels."""
    told = json.loads((GOLDEN / "formats.json").read_text(encoding="utf-8"))["GET /metrics"]
    rows = [[code(name), *what.split(": ", 1)] for name, what in told.items()]
    return table(["metric", "kind", ""], rows)
