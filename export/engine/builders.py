"""Owns the rows of engine building: who can build, for which batches, and what is written of a build.

They import nothing heavy, so that the command line and the docs can read them; building is `export.engine.build`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from zoo.errors import ZooError, look_up
from zoo.rows import Ascending, Count, NotNegative, Row, Some, Text, Within, read


@dataclass(frozen=True, kw_only=True)
class Builder(Row):
    """One form of TensorRT. `modules` are its import names; the first installed one counts.

    `ahead_of_time`: it builds without a GPU, for compute capabilities that the caller chooses.
    """

    id: Text
    name: Text
    modules: Annotated[tuple[str, ...], Some()]
    install: Text
    ahead_of_time: bool


CLASSIC = Builder(
    id="tensorrt",
    name="TensorRT",
    modules=("tensorrt", "tensorrt_bindings"),
    install="pip install 'zoo[tensorrt]'",
    ahead_of_time=False,
)
RTX = Builder(
    id="tensorrt-rtx",
    name="TensorRT-RTX",
    modules=("tensorrt_rtx",),
    install="pip install 'zoo[rtx]'",
    ahead_of_time=True,
)
BUILDERS = (CLASSIC, RTX)
AUTO = "auto"  # whichever can build here
# What a field or an option may hold. A type checker cannot read the rows, so for it an id is any text.
if TYPE_CHECKING:
    BuilderId = str
else:
    BuilderId = Literal[(AUTO, *(row.id for row in BUILDERS))]

# The smallest batch, the one to tune for, and the largest.
Batches = Annotated[tuple[int, int, int], Within(1), Ascending()]


# Numbers in a tensor that TensorRT's convolutions take: "Volume Limits" of its operator reference, and
# https://github.com/NVIDIA/TensorRT/issues/4123 of 10.4. Beyond it a build fails after minutes, without a reason.
LARGEST_TENSOR = 2**31 - 1


def check_batches(batches: tuple[int, int, int], largest_map: int, image_size: int) -> None:
    """Check, before long work, that the largest batch of a profile fits TensorRT's tensors.

    Raises:
        ZooError: it does not; says the largest one that does. `largest_map` is as `zoo.model.counts` has it.
    """
    most = LARGEST_TENSOR // largest_map
    if batches[-1] > most:
        raise ZooError(
            f"A batch of {batches[-1]:,} is too large: at {image_size} px the network makes {largest_map:,} numbers of "
            f"one picture, and TensorRT's convolutions take at most {LARGEST_TENSOR:,} of all together.",
            f"The largest batch is {most:,}: --profile {batches[0]} {min(batches[1], most)} {most}, or less.",
        )


def find_builder(id: str) -> Builder:
    """Look a form of TensorRT up by its id.

    Raises:
        UnknownNameError: there is none; names the nearest.
    """
    return look_up({row.id: row for row in BUILDERS}, id, kind="builder", hint="`zoo export --help` lists them.")


@dataclass(frozen=True, kw_only=True)
class BatchProfile(Row):
    """The batches an engine takes: from `min` to `max`, tuned for `opt`.

    Raises:
        RowError: not 1 ≤ min ≤ opt ≤ max. TensorRT would build such a profile without a word.
    """

    min: Count = 1
    opt: Count = 8
    max: Count = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        read(Batches, (self.min, self.opt, self.max), "profile")


@dataclass(frozen=True, kw_only=True)
class BuildCard(Row):
    """Who built a plan, and for what. `name` is the builder's id.

    `targets` are the compute capabilities it runs on; `gpu` is the one it was built on, None if built without.
    """

    name: Text
    version: Text
    targets: tuple[str, ...]
    profile: BatchProfile
    gpu: str | None
    build_s: NotNegative
    warnings: tuple[str, ...]
