"""The table of routes in docs/serving.md is the server's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

SERVING = Path(__file__).parents[3] / "docs" / "serving.md"


def test_every_route_is_documented_and_none_besides(server: Any) -> None:
    own = {route.path.replace("{number:int}", "N") for route in server.server.config.app.routes}
    table = re.search(r"## Routes\n\n(.*?)\n\n", SERVING.read_text(encoding="utf-8"), re.DOTALL)
    assert table
    told = {
        path for line in table[1].splitlines() for path in re.findall(r"`(?:GET |POST )?(/[^`?]*)", line.split("|")[1])
    }
    assert told == own
