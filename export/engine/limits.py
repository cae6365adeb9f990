"""Owns what a form or a release of TensorRT cannot be told: an option without effect is refused, never ignored.

Every row was seen with the real builder, or is NVIDIA's own word; it says which. It builds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from export.engine.builders import CLASSIC, RTX, EngineSettings
from export.engine.tensorrt_api import TensorRT
from zoo.errors import ZooError
from zoo.machine import Driver
from zoo.rows import Row, Text


@dataclass(frozen=True, kw_only=True)
class Limit(Row):
    """One option that a builder cannot honour, why, and what to do instead.

    It holds for the option's `values` (all of them where there are none), for the `releases` whose version starts so
    (all of them where it is empty), where the bindings lack the member `lacks`, or only `without_driver`.
    """

    builder: Text
    setting: Text
    why: Text
    instead: Text
    values: tuple[str, ...] = ()
    releases: str = ""
    lacks: str = ""
    without_driver: bool = False

    @property
    def flag(self) -> str:
        """The option of `zoo export` that says it."""
        return f"--{self.setting.replace('_', '-')}"

    def holds(self, tensorrt: TensorRT, value: object, driver: Driver | None) -> bool:
        """Whether `value` of its setting is refused here."""
        return (
            tensorrt.builder.id == self.builder
            and value is not None
            and value is not False
            and (not self.values or value in self.values)
            and f"{tensorrt.version}.".startswith(self.releases and f"{self.releases}.")
            and not (self.lacks and _has(tensorrt, self.lacks))
            and not (self.without_driver and driver)
        )


LIMITS = (
    # tensorrt-rtx 1.7: "Timing cache operations are no-ops in TensorRT-RTX"; NVIDIA's page "Timing Cache Migration".
    Limit(
        builder=RTX.id,
        setting="timing_cache",
        why="it measures nothing while it builds: kernels are compiled where the plan runs",
        instead="Leave --timing-cache out: it builds S in seconds.",
    ),
    # tensorrt-rtx 1.7, tiny and B0: levels 0 to 5 take the same time, and their plans differ as two of one level do.
    Limit(
        builder=RTX.id,
        setting="optimization_level",
        why="it tunes nothing while it builds: kernels are compiled where the plan runs",
        instead="Leave --optimization-level out.",
    ),
    # tensorrt-rtx 1.7: "setHardwareCompatibilityLevel() is unsupported in TensorRT-RTX."
    Limit(
        builder=RTX.id,
        setting="compat",
        why="its plans run on all GPUs they were built for",
        instead="Choose them: --gpu rtx-ampere,rtx-ada,rtx-blackwell.",
    ),
    # tensorrt-rtx 1.7: "Unable to load library: libnvinfer_lean.so.1", which its packages do not have.
    Limit(
        builder=RTX.id,
        setting="version_compatible",
        why="it comes without the lean runtime that such a plan carries",
        instead="Build with the release that will run the plan, or with --builder tensorrt.",
    ),
    # tensorrt-rtx 1.7: "MyelinCheckException: CHECK(status == CUDA_SUCCESS) failed" with REFIT, REFIT_IDENTICAL and
    # STRIP_PLAN on a machine without a driver.
    Limit(
        builder=RTX.id,
        setting="weights",
        values=("refittable", "stripped"),
        why="it needs a CUDA driver to build such a plan, and this machine has none",
        instead="Build it on a machine with a GPU, or leave --weights out.",
        without_driver=True,
    ),
    # The enum of 10.0.1 lacks it, that of 10.9 has it.
    Limit(
        builder=CLASSIC.id,
        setting="compat",
        values=("same",),
        lacks="HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY",
        why="this release knows no level for one compute capability",
        instead="Use TensorRT 10.9 or later, or --compat ampere+.",
    ),
    # "Refitting an Engine" of 11.3: a GEMM's bias may be taken for zero, even when nothing is refitted. The classifier
    # is such a GEMM. Not so with REFIT_IDENTICAL, which "stripped" uses.
    Limit(
        builder=CLASSIC.id,
        setting="weights",
        values=("refittable",),
        releases="11.3",
        why="this release may drop the classifier's bias from a refittable plan (NVIDIA's release notes)",
        instead="Use another release of TensorRT, or --weights stripped.",
    ),
)


def check_limits(
    tensorrt: TensorRT, settings: EngineSettings, *, driver: Driver | None, timing_cache: Path | None = None
) -> None:
    """Refuse what this builder, in this release and on this machine, cannot be told.

    Raises:
        ZooError: names the option, why, and what to do instead.
    """
    for limit in LIMITS:
        value = timing_cache if limit.setting == "timing_cache" else getattr(settings, limit.setting)
        if limit.holds(tensorrt, value, driver):
            told = f" {value}" if limit.values else ""
            raise ZooError(
                f"{tensorrt.builder.name} {tensorrt.version} does not take {limit.flag}{told}: {limit.why}.",
                limit.instead,
            )


def _has(tensorrt: TensorRT, path: str) -> bool:
    kind, _, member = path.partition(".")
    return hasattr(getattr(tensorrt.module, kind, None), member)
