"""Owns one run of `zoo bench check`: which claims are left to check, and the result that grows with each; resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from serve.bench.measure.ratio import Verdict
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
from zoo.measure.rounds import plan_rounds
from zoo.measure.vitals import Watch
from zoo.model.variants import find_variant
from zoo.results import Result, Subject, measured_on, read_results, result_path, write_result
from zoo.rows import Count, CountOrNone, Row, Text

# Runs at most in one go, for each that is still to be made: on a busy machine none may count.
MAX_ATTEMPTS = 2
# What repeated runs are to find, by the factor that slows the first of two equal artifacts.
_REPEATED: tuple[tuple[str, str, float, Verdict], ...] = (
    ("equal artifacts", "Two equal artifacts are even.", 1.0, "even"),
    ("a slower artifact", "An artifact that is 5 % slower is found to be slower.", SLOWER_BY, "slower"),
)


@dataclass(frozen=True, kw_only=True)
class Repeated(Row):
    """Verdicts of the quiet runs so far of one repeated check, and how many runs were disturbed and do not count."""

    name: Text
    verdicts: tuple[Verdict, ...] = ()
    disturbed_runs: CountOrNone = 0


@dataclass(frozen=True, kw_only=True)
class CheckData(Row):
    """The data of a result of `zoo bench check`. `runs` are those asked for of every repeated check."""

    written_too = ("complete",)

    claims: tuple[Claim, ...]
    repeated: tuple[Repeated, ...]
    runs: Count

    @property
    def complete(self) -> bool:
        """Whether every check was made as often as asked, on a machine that was quiet."""
        enough = all(len(one.verdicts) >= self.runs for one in self.repeated)
        return enough and bool(self.claims) and all(claim.quiet for claim in self.claims)

    def every_claim(self) -> tuple[Claim, ...]:
        """The claims of single runs, then those of repeated ones as far as there are verdicts."""
        said = {name: (says, right) for name, says, _, right in _REPEATED}
        counted = [
            claim_of_verdicts(one.name, said[one.name][0], one.verdicts, said[one.name][1], one.disturbed_runs)
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
    result_of = partial(_result, subject=subject, duration_s=options.duration_s)
    fresh = CheckData(claims=(), repeated=tuple(Repeated(name=name) for name, *_ in _REPEATED), runs=options.runs)
    path = result_path(options.out, result_of(fresh))
    data = fresh if options.again or not path.is_file() else _earlier(path, options)
    if data.complete:
        say(f"{path} is complete; --again checks anew.")
        return result_of(data)
    for grown in _checks(data, options, say):
        data = grown
        write_result(options.out, result_of(data))
    return result_of(data)


def _earlier(path: Path, options: CheckOptions) -> CheckData:
    """What an earlier run has checked; only runs of the same length can be counted together."""
    try:
        (kept,) = read_results([path])
        data = replace(CheckData.from_dict(kept.data), runs=options.runs)
    except ZooError as error:
        raise ZooError(f"{path} cannot be gone on with: {error}", "--again begins anew.") from error
    lasted_s = kept.settings.get("duration_s")
    if lasted_s != options.duration_s:
        was = f"with --duration-s {lasted_s:g}" if lasted_s else "by an older version"
        raise ZooError(
            f"{path} was made {was}, and this is --duration-s {options.duration_s:g}.", "--again begins anew."
        )
    return data


def _checks(data: CheckData, options: CheckOptions, say: Callable[[str], None]) -> Iterator[CheckData]:
    """The data after every further check; claims that were checked while the machine was busy are checked again."""
    bench = open_bench(options, say)
    claims = {claim.name: claim for claim in data.claims}
    for name, check in single_claims(bench).items():
        if name not in claims or not claims[name].quiet:
            claims[name] = check()
            say(f"{name}: {claims[name].found}")
            data = replace(data, claims=tuple(claims.values()))
            yield data
    for place, (name, _, factor, _) in enumerate(_REPEATED):
        one = data.repeated[place]
        for _ in range(MAX_ATTEMPTS * (options.runs - len(one.verdicts))):
            verdict, quiet = check_pair(bench, factor)
            if quiet:
                one = replace(one, verdicts=(*one.verdicts, verdict))
            else:
                one = replace(one, disturbed_runs=one.disturbed_runs + 1)
            say(
                f"{name}, {len(one.verdicts)} of {options.runs}: {verdict}{'' if quiet else ', disturbed, not counted'}"
            )
            data = replace(data, repeated=(*data.repeated[:place], one, *data.repeated[place + 1 :]))
            yield data
            if len(one.verdicts) >= options.runs:
                break


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
    return Bench(
        graph=graph,
        batch=batch,
        schedule=plan_rounds(options.duration_s, warmup_ms=100.0),
        threads=threads,
        watch=Watch(),
    )


def failed_claims(data: CheckData) -> Sequence[Claim]:
    """Claims that failed although the machine was quiet."""
    return [claim for claim in data.every_claim() if claim.quiet and not claim.passed]


def _result(data: CheckData, *, subject: Subject, duration_s: float) -> Result:
    return Result(
        kind="check",
        name=subject.name,
        environment=measured_on(processor_name()),
        settings={
            "subjects": [subject.to_dict()],
            "duration_s": duration_s,
            "clock": "the host's clock (perf_counter_ns)",
        },
        data=data.to_dict(),
    )
