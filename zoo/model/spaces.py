"""Owns the spaces that come with the project, one row each, and how a space is found: by its id, or in a TOML file."""

from __future__ import annotations

from pathlib import Path

from zoo.errors import DataError, RowError, unknown_name
from zoo.model.row_files import read_toml, write_toml
from zoo.model.space import Space, StageSpace
from zoo.model.variants import V1_B0

SUFFIX = ".toml"
MAKE_ONE = "`zoo search --space paper --write-space my.toml` writes one to start from."
# Published networks whose stage tables are placed among a space's candidates, so that a search can be judged by them.
REFERENCES = ("s", "b0", "v1-b0")

# Layers that hold V1-B0 (1 2 2 3 3 4 1) and V2-B0 (1 2 2 3 5 8) exactly, and S as far as they go.
_PAPER_LAYERS = (
    *((1, 2), (1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4, 5, 6)),
    *((0, 1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 5, 6, 7, 8), (0, 1, 2)),
)


def of_backbone(id: str, layers: tuple[tuple[int, ...], ...], *, width: float, head: int, source: str) -> Space:
    """The paper's choices on EfficientNet's backbone: V1-B0's channels times `width`, in eights, and its strides."""
    return Space(
        id=id,
        stem_channels=_eights(V1_B0.stem_channels * width),
        stages=tuple(
            StageSpace(out_channels=_eights(stage.out_channels * width), stride=stage.stride, num_layers=choices)
            for stage, choices in zip(V1_B0.stages, layers, strict=True)
        ),
        head_channels=head,
        image_size=96 if width == 1 else 32,
        train_size=V1_B0.train_size if width == 1 else 32,
        eval_size=V1_B0.eval_size if width == 1 else 32,
        source=source,
    )


def _eights(channels: float) -> int:
    return max(8, int(channels + 4) // 8 * 8)


PAPER = of_backbone(
    "paper",
    _PAPER_LAYERS,
    width=1,
    head=V1_B0.head_channels,
    source="V2 §3.3, channels of EfficientNet-B0 (V1 Table 1); the paper does not state how many layers it chose from",
)
# For processors and pictures of 32 px: the same choices, half the channels, few layers.
SMALL = of_backbone(
    "small",
    ((1,), (1, 2), (1, 2, 3), (1, 2, 3), (0, 1, 2, 3), (1, 2, 3), (0, 1)),
    width=0.5,
    head=256,
    source="this project: the paper's space at half the width, for pictures of 32 px on a processor",
)
# For tests: every kind of choice in the fewest networks. Its 2 · (1 + 2) · 4 can be tried one by one.
CONTROL = Space(
    id="control",
    stem_channels=8,
    stages=(
        StageSpace(out_channels=8, stride=1, num_layers=(1,), kernel_sizes=(3,), expand_ratios=(1,)),
        StageSpace(
            out_channels=8, stride=1, num_layers=(0, 1), kernel_sizes=(3,), expand_ratios=(2,), fused_se_ratios=(0.25,)
        ),
        StageSpace(out_channels=16, stride=2, num_layers=(1,), kernel_sizes=(3, 5), expand_ratios=(2,)),
    ),
    head_channels=32,
    image_size=32,
    train_size=32,
    eval_size=32,
    dropout=0.1,
    source="this project: every kind of choice in the fewest networks",
)
SPACES: tuple[Space, ...] = (PAPER, SMALL, CONTROL)


def find_space(name: str) -> Space:
    """A space by its id, or from a TOML file.

    Raises:
        UnknownNameError: no space is called so. DataError: as `load_space`.
    """
    if Path(name).suffix == SUFFIX:
        return load_space(Path(name))
    for space in SPACES:
        if space.id == name:
            return space
    raise unknown_name("space", name, [space.id for space in SPACES], f"Or give a file: {MAKE_ONE}")


def load_space(path: Path) -> Space:
    """Read a space from a TOML file.

    Raises:
        DataError: no such file, not TOML, or a field that is missing, unknown or out of range, or no network in it.
    """
    try:
        return Space.from_dict(read_toml(path, "space", MAKE_ONE))
    except RowError as error:
        raise DataError(f"{path}: {error.problem}", error.hint) from error


def write_space(path: Path, space: Space) -> None:
    """Write a space as TOML to a new file; `load_space` reads an equal one back.

    Raises:
        DataError: the file is there already, or its name is not that of a TOML file.
    """
    if path.suffix != SUFFIX:
        raise DataError(f"{path} does not end in {SUFFIX}: it would be taken for the name of a space.", "Rename it.")
    if path.exists():
        raise DataError(f"{path} is there already, and may have been edited.", "Remove it, or choose another name.")
    write_toml(path, space, f"{space.source}\nHow to read and change it: docs/search.md.")
