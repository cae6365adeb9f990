"""Owns what a measurement is: the summary of its samples and the JSON file it is kept in; it measures nothing.

A result file (format "zoo-result-1") holds one run of one benchmark on one device:

    {"format": "zoo-result-1", "kind": "stages", "name": "s-384px-b1-fp32", "zoo_version": "0.1.0",
     "environment": {…, "device": "NVIDIA H100 80GB HBM3"}, "settings": {"subjects": [{…}], …}, "data": {…}}

`environment` is `zoo.machine.environment()` and the device that did the work, `settings` says what was measured and
how, `data` is what came out and belongs to the kind. This file knows no kind: a kind is a name here.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from zoo import __version__
from zoo.errors import RowError, ZooError
from zoo.files import write_json
from zoo.machine import environment, source_commit
from zoo.options import typed_command
from zoo.rows import Count, Matching, NotNegative, Row, Text
from zoo.wording import milliseconds, with_threads

REPORT_FORMAT = "zoo-report-1"
# trtexec warns above 2.5 % (NVIDIA/TensorRT samples/common/sampleReporting.cpp, printPerformanceReport).
UNSTABLE_ABOVE = 0.025
# File systems take 255 bytes; the suffix and the temporary name of a file that is being written need some of them.
LONGEST_NAME = 200
HASH_DIGITS = 8  # of a SHA-256, in the name of a file

KindName = Annotated[str, Matching(r"[a-z][a-z0-9_]*", "small letters, digits and _")]
Sha256 = Annotated[str, Matching(r"[0-9a-f]{64}", "64 hexadecimal digits")]

_MAKE_ONE = "`zoo bench stages s` and `zoo bench latency ARTIFACT` write results to benchmarks/."


@dataclass(frozen=True, kw_only=True)
class Summary(Row):
    """The samples of one measurement in milliseconds; the spread is the standard deviation as a share of the mean."""

    written_too = ("unstable",)

    n: Count
    mean_ms: NotNegative
    std_ms: NotNegative
    coefficient_of_variation: NotNegative
    min_ms: NotNegative
    p50_ms: NotNegative
    p90_ms: NotNegative
    p95_ms: NotNegative
    p99_ms: NotNegative
    max_ms: NotNegative

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

    @property
    def tail(self) -> str:
        """“p99 12.0 ms” where there are samples enough for one; of fewer it is the slowest, and is called so."""
        p99 = self.telling_p99_ms
        return f"slowest {milliseconds(self.max_ms)}" if p99 is None else f"p99 {milliseconds(p99)}"


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
class Subject(Row):
    """One thing that was measured: the facts that tell it from everything else measured on the same device.

    `threads` are the processor threads that were in effect, None on a GPU or where they cannot be known. `sha256` is
    of the artifact's file, or of a network's row where no table has it. `way` is how it was measured where a command
    has several ways; None is the usual one.
    """

    name: Text
    batch_sizes: tuple[Count, ...] = ()
    precision: Text | None = None
    threads: Count | None = None
    sha256: Sha256 | None = None
    way: Text | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """What a file's name says of it, one word for each fact; empty where it is not known."""
        return (
            self.name,
            "-".join(f"b{size}" for size in self.batch_sizes),
            self.precision or "",
            with_threads(self.threads),
            self.sha256[:HASH_DIGITS] if self.sha256 else "",
            self.way or "",
        )


@dataclass(frozen=True, kw_only=True)
class Result(Row):
    """One run of one benchmark. `environment` comes from `measured_on`; the mappings hold plain JSON types.

    `settings["subjects"]` has a `Subject` for each thing that was measured; files of older versions have none.
    """

    format: Literal["zoo-result-1"] = "zoo-result-1"
    kind: KindName
    name: str
    zoo_version: Text = __version__
    environment: Mapping[str, Any]
    settings: Mapping[str, Any]
    data: Mapping[str, Any]

    @property
    def device(self) -> str:
        """What did the work: "NVIDIA H100 80GB HBM3", or a processor's name."""
        return str(self.environment["device"])

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """What was measured, as far as the result says."""
        return tuple(map(Subject.from_dict, self.settings.get("subjects", ())))


def measured_on(device: str) -> dict[str, Any]:
    """The environment of a result whose work was done by `device`: also the sources' commit, and what was typed."""
    return environment() | {"device": device, "commit": source_commit(), "command": typed_command()}


def row_sha256(row: Row) -> str:
    """The SHA-256 of a row's fields, for a subject that is a row and no file."""
    return hashlib.sha256(json.dumps(row.to_dict(), sort_keys=True).encode()).hexdigest()


def result_path(folder: Path, result: Result) -> Path:
    """Where a result is kept: FOLDER/KIND-SUBJECT-DEVICE.json; SUBJECT is what `Subject.words` says.

    Of several subjects there is every name, and a fact once that all of them share:
    latency-s-onnx-vs-s-plan-b1-b8-fp32-vs-fp16-1f0c9a2e-vs-77ab0012-nvidia-h200.json. The same subjects on the same
    device replace their last result. A result without subjects is named after its `name`.
    """
    names, *facts = list(zip(*(subject.words for subject in result.subjects), strict=True)) or [(result.name,)]
    told = [words[:1] if len(set(words)) == 1 else [word or "none" for word in words] for words in facts]
    said = filter(None, map(" vs ".join, (names, *told)))
    stem = "-".join(map(_slug, (result.kind, *said, result.device)))
    if len(stem) > LONGEST_NAME:
        stem = f"{stem[:LONGEST_NAME]}-{hashlib.sha256(stem.encode()).hexdigest()[:HASH_DIGITS]}"
    return folder / f"{stem}.json"


def write_result(folder: Path, result: Result) -> Path:
    """Write a result whole or not at all, and return its path.

    Raises:
        ZooError: a value in it is NaN or infinite, or the folder cannot be written.
    """
    path = result_path(folder, result)
    write_json(path, result.to_dict())
    return path


def read_results(
    paths: Iterable[Path],
    kinds: Collection[str] | None = None,
    *,
    check: Callable[[Result], object] = lambda result: None,
) -> list[Result]:
    """Read result files, and every result under the folders among `paths`; sorted by device, kind and name.

    Report files (`zoo bench report` writes them beside its page) are passed over in folders.

    Args:
        paths: files and folders.
        kinds: the kinds that the caller can read; None takes any.
        check: looks further into each result; the file's name is put before its errors.

    Raises:
        ZooError: a path that is missing, a folder without results, JSON that is no result of ours or of another kind.
    """
    results: dict[Path, Result] = {}
    for path in paths:
        files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        found = {file: result for file in files if (result := _read(file, kinds, skip_reports=path.is_dir()))}
        if not found:
            raise ZooError(f"{path} holds no results.", _MAKE_ONE)
        for file, result in found.items():
            try:
                check(result)
            except ZooError as error:
                raise ZooError(f"{file}: {error.problem}", error.hint) from error
            results[file.resolve()] = result
    return sorted(results.values(), key=lambda result: (result.device, result.kind, result.name))


def _read(path: Path, kinds: Collection[str] | None, *, skip_reports: bool) -> Result | None:
    if not path.is_file():
        raise ZooError(f"There is no result {path}.", _MAKE_ONE)
    try:
        fields = json.loads(path.read_text(encoding="utf-8-sig"))  # editors of Windows put a mark before the text
    except (ValueError, OSError, RecursionError) as error:
        raise ZooError(f"{path} is not readable JSON: {error}.", "Measure again, or take the file away.") from error
    format_ = fields.get("format") if isinstance(fields, dict) else None
    if format_ == REPORT_FORMAT and skip_reports:
        return None
    if format_ != Result.format:
        raise ZooError(
            f"{path} is not a result of `zoo bench` (format {format_!r}, expected {Result.format!r}).",
            "Take it out of the folder, or name the result files one by one.",
        )
    if kinds is not None and fields.get("kind") not in tuple(kinds):
        raise ZooError(
            f"{path} is a result of kind {fields.get('kind')!r}; this version reads {', '.join(kinds)}.",
            "A newer version of the zoo wrote it: update, or take the file away.",
        )
    try:
        result = Result.from_dict(fields)
    except RowError as error:
        raise ZooError(f"{path} is damaged: {error.problem}", "Measure again.") from error
    device = result.environment.get("device")
    if not (isinstance(device, str) and device.strip()):
        raise ZooError(f"{path} is damaged: its environment names no device.", "Measure again.")
    return result


def _slug(text: str) -> str:
    """Lower-case words joined by hyphens: a file name on every system."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unnamed"
