"""Owns what a measurement is: the summary of its samples and the JSON file it is kept in; it measures nothing.

A result file (format "zoo-result-1") holds one run of one benchmark on one device:

    {"format": "zoo-result-1", "kind": "stages", "name": "s-384px-b1-fp32", "zoo_version": "0.1.0",
     "environment": {…, "device": "NVIDIA H100 80GB HBM3"}, "settings": {…}, "data": {…}}

`environment` is `zoo.machine.environment()` and the device that did the work, `settings` is how it was measured,
`data` is what came out and belongs to the kind. Every summary in it carries its n.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from zoo import __version__
from zoo.errors import ZooError
from zoo.files import write_json
from zoo.machine import environment

FORMAT = "zoo-result-1"
REPORT_FORMAT = "zoo-report-1"
Kind = Literal["latency", "stages", "train", "peers", "loader", "decoding", "progressive"]
# trtexec warns above 2.5 % (NVIDIA/TensorRT samples/common/sampleReporting.cpp, printPerformanceReport).
UNSTABLE_ABOVE = 0.025

_MAKE_ONE = "`zoo bench stages s` and `zoo bench latency ARTIFACT` write results to benchmarks/."


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The samples of one measurement in milliseconds; the spread is the standard deviation as a share of the mean."""

    n: int
    mean_ms: float
    std_ms: float
    coefficient_of_variation: float
    min_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float

    @property
    def unstable(self) -> bool:
        """Whether the samples spread more than trtexec accepts without a warning."""
        return self.coefficient_of_variation > UNSTABLE_ABOVE

    @property
    def telling_p90_ms(self) -> float | None:
        """p90 where it says more than `max_ms`: from 10 samples on; of fewer it is the slowest one."""
        return self.p90_ms if self.n >= 10 else None

    @property
    def telling_p99_ms(self) -> float | None:
        """p99 where it says more than `max_ms`: from 100 samples on; of fewer it is the slowest one."""
        return self.p99_ms if self.n >= 100 else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, with the label a reader needs."""
        return asdict(self) | {"unstable": self.unstable}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        return cls(**{key: value for key, value in fields.items() if key != "unstable"})


def percentile(ascending: Sequence[float], percent: int) -> float:
    """The percentile trtexec reports: a sample that was really observed, never an interpolation.

    Index max(n − 1 − ⌊(1 − percent/100)·n⌋, 0) of the sorted samples (NVIDIA/TensorRT
    samples/common/sampleReporting.cpp, findPercentile), here in whole numbers so that rounding cannot move it:
    of 10 samples, p90 is the ninth.

    Raises:
        ValueError: no samples, or `percent` outside 0…100.
    """
    if not ascending or not 0 <= percent <= 100:
        raise ValueError(f"percentile {percent} of {len(ascending)} samples")
    n = len(ascending)
    return ascending[max(n - 1 - (100 - percent) * n // 100, 0)]


def summarize(samples_ms: Iterable[float]) -> Summary:
    """Summarise samples; deviation over n, as trtexec's findCoeffOfVariance does.

    Raises:
        ValueError: no samples.
    """
    ascending = sorted(samples_ms)
    n = len(ascending)
    if not n:
        raise ValueError("no samples to summarise")
    # Rounding may push the quotient an ulp outside the samples' range; a mean never leaves it.
    mean = min(max(math.fsum(ascending) / n, ascending[0]), ascending[-1])
    std = math.sqrt(math.fsum((sample - mean) ** 2 for sample in ascending) / n)
    return Summary(
        n=n,
        mean_ms=mean,
        std_ms=std,
        coefficient_of_variation=std / mean if mean else 0.0,
        min_ms=ascending[0],
        p50_ms=percentile(ascending, 50),
        p90_ms=percentile(ascending, 90),
        p95_ms=percentile(ascending, 95),
        p99_ms=percentile(ascending, 99),
        max_ms=ascending[-1],
    )


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run of one benchmark. `environment` comes from `measured_on`; the mappings hold plain JSON types."""

    kind: Kind
    name: str
    environment: Mapping[str, Any]
    settings: Mapping[str, Any]
    data: Mapping[str, Any]

    @property
    def device(self) -> str:
        """What did the work: "NVIDIA H100 80GB HBM3", or a processor's name."""
        return str(self.environment["device"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "name": self.name,
            "zoo_version": __version__,
            "environment": dict(self.environment),
            "settings": dict(self.settings),
            "data": dict(self.data),
        }


def measured_on(device: str) -> dict[str, Any]:
    """The environment of a result whose work was done by `device`."""
    return environment() | {"device": device}


def result_path(folder: Path, result: Result) -> Path:
    """Where a result is kept: FOLDER/KIND-NAME-DEVICE.json; the same run on the same device replaces the last one."""
    return folder / f"{result.kind}-{_slug(result.name)}-{_slug(result.device)}.json"


def write_result(folder: Path, result: Result) -> Path:
    """Write a result whole or not at all, and return its path."""
    path = result_path(folder, result)
    write_json(path, result.to_dict())
    return path


def read_results(paths: Iterable[Path]) -> list[Result]:
    """Read result files, and every result under the folders among `paths`; sorted by device, kind and name.

    Report files (`zoo bench report` writes them beside its page) are passed over in folders.

    Raises:
        ZooError: a path that is missing, a folder without results, or JSON that is not one of our results.
    """
    results: dict[Path, Result] = {}
    for path in paths:
        files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        found = {file.resolve(): result for file in files if (result := _read(file, skip_reports=path.is_dir()))}
        if not found:
            raise ZooError(f"{path} holds no results.", _MAKE_ONE)
        results |= found
    return sorted(results.values(), key=lambda result: (result.device, result.kind, result.name))


def _read(path: Path, *, skip_reports: bool) -> Result | None:
    if not path.is_file():
        raise ZooError(f"There is no result {path}.", _MAKE_ONE)
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ZooError(f"{path} is not readable JSON: {error}.", "Measure again, or take the file away.") from error
    format_ = fields.get("format") if isinstance(fields, dict) else None
    if format_ == REPORT_FORMAT and skip_reports:
        return None
    if format_ != FORMAT:
        raise ZooError(
            f"{path} is not a result of `zoo bench` (format {format_!r}, expected {FORMAT!r}).",
            "Take it out of the folder, or name the result files one by one.",
        )
    return _result(path, fields)


def _result(path: Path, fields: Mapping[str, Any]) -> Result:
    if fields.get("kind") not in get_args(Kind):
        raise ZooError(
            f"{path} is a result of kind {fields.get('kind')!r}; this version reads {', '.join(get_args(Kind))}.",
            "A newer version of the zoo wrote it: update, or take the file away.",
        )
    parts = ("environment", "settings", "data")
    if not isinstance(fields.get("name"), str) or any(not isinstance(fields.get(part), dict) for part in parts):
        raise ZooError(f"{path} is damaged: it needs a name and {', '.join(parts)}.", "Measure again.")
    if "device" not in fields["environment"]:
        raise ZooError(f"{path} is damaged: its environment names no device.", "Measure again.")
    return Result(kind=fields["kind"], name=fields["name"], **{part: fields[part] for part in parts})


def _slug(text: str) -> str:
    """Lower-case words joined by hyphens: a file name on every system."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unnamed"
