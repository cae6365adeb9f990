"""Owns the rows of engine building: who can build, for which batches, and what is written of a build.

They import nothing heavy, so that the command line and the docs can read them; building is `export.engine.build`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from zoo.errors import ZooError, look_up
from zoo.results import Sha256
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


@dataclass(frozen=True, kw_only=True)
class GpuFamily(Row):
    """A generation of RTX GPUs, and the compute capability that all of them have."""

    id: Text
    capability: Text


# https://developer.nvidia.com/cuda-gpus. Other capabilities (8.0 of an A100, 12.1 of a GB10) are named by --target.
GPU_FAMILIES = (
    GpuFamily(id="rtx-turing", capability="7.5"),
    GpuFamily(id="rtx-ampere", capability="8.6"),
    GpuFamily(id="rtx-ada", capability="8.9"),
    GpuFamily(id="rtx-blackwell", capability="12.0"),
)


def capabilities_of(families: Sequence[str]) -> tuple[str, ...]:
    """The compute capabilities of families of GPUs, each text one of them or several with commas between.

    Raises:
        UnknownNameError: there is no such family; names the nearest.
    """
    known = {row.id: row for row in GPU_FAMILIES}
    ids = [part.strip() for text in families for part in text.split(",")]
    hint = f"There are {', '.join(known)}; --target takes a compute capability."
    return tuple(look_up(known, id, kind="family of GPUs", hint=hint).capability for id in ids)


AMPERE = (8, 0)

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


# What an engine's kernels may assume of the GPU: its model, its compute capability, or Ampere and anything later.
Compat = Literal["same", "ampere+"]
# Where an engine's weights are: for good in it; in it, to be replaced; or left out, and taken from the .onnx beside it.
WeightsIn = Literal["fixed", "refittable", "stripped"]
OptimizationLevel = Annotated[int, Within(0, 5)]


@dataclass(frozen=True, kw_only=True)
class EngineSettings(Row):
    """What an engine is built to be. None is TensorRT's own default.

    `targets` are the compute capabilities asked for, of ahead-of-time builders; empty means Ampere and later.
    `workspace_mib` is the most memory of the GPU that a layer may use beside its tensors. A `version_compatible` engine
    is loaded by later releases of TensorRT too. With `tf32` layers of float32 may round what they read to TF32.
    `export.engine.limits` says which builder cannot do what.
    """

    profiles: Annotated[tuple[BatchProfile, ...], Some()] = (BatchProfile(),)
    targets: tuple[str, ...] = ()
    workspace_mib: Count | None = None
    optimization_level: OptimizationLevel | None = None
    compat: Compat | None = None
    version_compatible: bool = False
    weights: WeightsIn = "fixed"
    tf32: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; without TF32 they are those of the first version."""
        fields = super().to_dict()
        if not self.tf32:
            del fields["tf32"]
        return fields


@dataclass(frozen=True, kw_only=True)
class BuildCard(Row):
    """Who built a plan, and for what. `name` is the builder's id.

    `targets` are the compute capabilities it runs on; `gpu` is the one it was built on, None if built without;
    `profile` is the first of the `settings`', which passports of the first versions lack. `timing_cache` is the name of
    the file that lent it measurements. One `from_cache` was built by an earlier export. `refitted_from` is the SHA-256
    of the plan whose kernels it has.
    """

    name: Text
    version: Text
    targets: tuple[str, ...]
    profile: BatchProfile
    gpu: str | None
    build_s: NotNegative
    warnings: tuple[str, ...]
    settings: EngineSettings | None = None
    timing_cache: str | None = None
    from_cache: bool = False
    refitted_from: Sha256 | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; of a card of the first versions they are those of the first version."""
        fields = super().to_dict()
        if self.settings is None:
            for name in ("settings", "timing_cache", "from_cache", "refitted_from"):
                del fields[name]
        return fields

    @property
    def built_as(self) -> EngineSettings:
        """Its settings; of the first versions, which had no other, what they amount to."""
        return self.settings or EngineSettings(profiles=(self.profile,))

    def runs_on(self, capability: tuple[int, int]) -> bool:
        """Whether it was built for GPUs of this compute capability."""
        later = self.built_as.compat == "ampere+" and capability >= AMPERE
        return later or f"{capability[0]}.{capability[1]}" in self.targets
