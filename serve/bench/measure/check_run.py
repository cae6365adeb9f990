"""Owns one run of `zoo bench check`: which claims are left to check, and the result that grows with each; resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from serve.bench.measure.ratio import Verdict
from serve.bench.measure.rounds import plan_rounds
from serve.bench.measure.self_check import (
    SLOWER_BY,
    Bench,
    Claim,
    check_pair,
    claim_of_verdicts,
    single_claims,
)
from serve.bench.options import CheckOptions
from zoo.errors import ZooError
from zoo.machine import processor_name, usable_cores
from zoo.model.variants import find_variant
from zoo.results import Result, Subject, measured_on, read_results, result_path, write_result
from zoo.rows import Count, CountOrNone, Row, Text

# What repeated runs are to find, by the factor that slows the first of two equal artifacts.
_REPEATED: tuple[tuple[str, str, float, Verdict], ...] = (
    ("equal artifacts", "Two equal artifacts are even.", 1.0, "even"),
    ("a slower artifact", "An artifact that is 5 % slower is found to be slower.", SLOWER_BY, "slower"),
)


@dataclass(frozen=True, kw_only=True)
class Repeated(Row):
    """Verdicts of the runs so far of one repeated check, and how many of the runs were quiet."""

    name: Text
    verdicts: tuple[Verdict, ...] = ()
    quiet_runs: CountOrNone = 0


@dataclass(frozen=True, kw_only=True)
class CheckData(Row):
    """The data of a result of `zoo bench check`. `runs` are those asked for of every repeated check."""

    written_too = ("complete",)

    claims: tuple[Claim, ...]
    repeated: tuple[Repeated, ...]
    runs: Count

    @property
    def complete(self) -> bool:
        """Whether every check was made as often as asked."""
        return all(len(one.verdicts) >= self.runs for one in self.repeated)

    def every_claim(self) -> tuple[Claim, ...]:
        """The claims of single runs, then those of repeated ones as far as there are verdicts."""
        said = {name: (says, right) for name, says, _, right in _REPEATED}
        counted = [
            claim_of_verdicts(one.name, said[one.name][0], one.verdicts, said[one.name][1], one.quiet_runs)
            for one in self.repeated
            if one.verdicts
        ]
        return (*self.claims, *counted)


def bench_check(options: CheckOptions, *, say: Callable[[str], None] = lambda line: None) -> Result:
    """Check every claim that has not been checked yet, and write the result after each.

    Raises:
        ZooError: as `zoo.model.variants.find_variant`, or the result cannot be written.
    """
    subject = Subject(name=f"harness with {options.model}", threads=options.threads or usable_cores())
    empty = _result(
        CheckData(claims=(), repeated=tuple(Repeated(name=name) for name, *_ in _REPEATED), runs=1), subject
    )
    path = result_path(options.out, empty)
    data = _earlier(path, options)
    if data.complete and data.claims:
        say(f"{path} is complete; --again checks anew.")
        return _result(data, subject)
    for grown in _checks(data, options, say):
        data = grown
        write_result(options.out, _result(data, subject))
    return _result(data, subject)


def _earlier(path: Path, options: CheckOptions) -> CheckData:
    fresh = CheckData(claims=(), repeated=tuple(Repeated(name=name) for name, *_ in _REPEATED), runs=options.runs)
    if options.again or not path.is_file():
        return fresh
    try:
        return replace(CheckData.from_dict(read_results([path])[0].data), runs=options.runs)
    except ZooError as error:
        raise ZooError(f"{path} cannot be gone on with: {error}", "--again begins anew.") from error


def _checks(data: CheckData, options: CheckOptions, say: Callable[[str], None]) -> Iterator[CheckData]:
    """The data after every further check."""
    bench = open_bench(options, say)
    if not data.claims:
        for check in single_claims(bench):
            claim = check()
            say(f"{claim.name}: {claim.found}")
            data = replace(data, claims=(*data.claims, claim))
        yield data
    for place, (name, _, factor, _) in enumerate(_REPEATED):
        while len(data.repeated[place].verdicts) < options.runs:
            one = data.repeated[place]
            verdict, quiet = check_pair(bench, factor)
            one = replace(one, verdicts=(*one.verdicts, verdict), quiet_runs=one.quiet_runs + quiet)
            say(f"{name}, {len(one.verdicts)} of {options.runs}: {verdict}{'' if quiet else ', not quiet'}")
            data = replace(data, repeated=(*data.repeated[:place], one, *data.repeated[place + 1 :]))
            yield data


def open_bench(options: CheckOptions, say: Callable[[str], None]) -> Bench:
    """A network with random weights as a graph, a batch of one picture, and the schedule of every comparison."""
    from export.contract import Contract
    from export.graph import export_onnx
    from export.source import NUM_CLASSES, make_random_network

    variant = find_variant(options.model)
    say(f"exporting {variant.id} with random weights")
    preprocessing = variant.preprocessing
    classes = tuple(f"class {index}" for index in range(NUM_CLASSES))
    contract = Contract(model=variant.id, classes=classes, preprocessing=preprocessing)
    graph = export_onnx(make_random_network(variant, preprocessing), contract, checkpoint={}).SerializeToString()
    shape = (1, preprocessing.image_size, preprocessing.image_size, preprocessing.channels)
    batch = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    threads = tuple(sorted({options.threads or 1, options.threads or usable_cores()}))
    return Bench(graph=graph, batch=batch, schedule=plan_rounds(options.duration_s, warmup_ms=100.0), threads=threads)


def failed_claims(data: CheckData) -> Sequence[Claim]:
    """Claims that failed although the machine was quiet."""
    return [claim for claim in data.every_claim() if claim.quiet and not claim.passed]


def _result(data: CheckData, subject: Subject) -> Result:
    return Result(
        kind="check",
        name=subject.name,
        environment=measured_on(processor_name()),
        settings={"subjects": [subject.to_dict()], "clock": "the host's clock (perf_counter_ns)"},
        data=data.to_dict(),
    )
