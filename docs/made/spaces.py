"""Owns the table of spaces in docs/search.md: each one's channels, layers and number of networks."""

from __future__ import annotations

from made.markdown import code, table_with_words
from zoo.model.spaces import SPACES
from zoo.wording import count


def table(rest: str, body: str) -> str:
    """One line a space; what it is for is the page's own words."""
    rows = []
    for space in SPACES:
        channels = " ".join(str(stage.out_channels) for stage in space.stages)
        layers = " ".join(f"{min(stage.num_layers)}–{max(stage.num_layers)}" for stage in space.stages)
        size = f"{space.size:,}" if space.size < 1000 else count(space.size).replace(" G", " billion")
        rows.append([code(space.id), size, channels, layers, f"{space.image_size} px"])
    return table_with_words(["space", "networks", "channels", "layers", "trial", "for"], rows, body)
