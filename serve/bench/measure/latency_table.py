"""Owns one run of `zoo bench latency-table`: what is left to measure, and the result that grows with it; resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from export.source import NUM_CLASSES
from serve.bench.engine_rows import find_engine
from serve.bench.measure.block_times import TimedGroup, groups_of, measure_group
from serve.bench.measure.engines import Bench, best_engine, check_engine, open_prepared
from serve.bench.measure.isolated import Open, time_prepared
from serve.bench.measure.latency import Time
from serve.bench.measure.latency_table_data import LatencyTableData, PartRow, WholeRow
from serve.bench.measure.stage_runs import INPUT, bench_of, check_memory, check_threads, device_name
from serve.bench.measure.stages import FRAME
from serve.bench.measure.whole import prepare_network
from serve.bench.stage_options import LatencyTableOptions
from zoo.errors import RowError, ZooError
from zoo.intervals import median_interval
from zoo.measure.gpu_trace import GpuTrace
from zoo.measure.rounds import Rounds, plan_rounds
from zoo.measure.timing import Schedule
from zoo.model.blocks import LatencyTable
from zoo.model.space import Candidate, Space
from zoo.model.spaces import REFERENCES, find_space
from zoo.model.variants import find_variant
from zoo.results import Result, Subject, measured_on, read_results, result_path, write_result

KIND = "latency_table"
CLOCK = "the host's clock (perf_counter_ns) around Runner.infer, one batch in flight; the frame around a part taken off"
AGAIN = "--again begins anew; or give the settings of that run."


@dataclass(frozen=True, kw_only=True)
class Seams:
    """What a test puts a fake in the place of: what opens a prepared network, and the clock."""

    open_form: Open = open_prepared
    when: Time | None = None


def bench_latency_table(
    options: LatencyTableOptions,
    *,
    schedule: Schedule | None = None,
    say: Callable[[str], None] = lambda line: None,
    seams: Seams | None = None,
) -> Result:
    """Time every part of a space's networks, then whole networks, and write the result after every few.

    Args:
        options: the space, the engine and how long.
        schedule: instead of the one that the options ask for.
        say: is told what is being done.
        seams: what tests exchange.

    Raises:
        DataError, UnknownNameError: there is no such space. ZooError and its kinds: as `check_engine` and what
        measures; a result of other settings is there, or the result cannot be written.
    """
    space = find_space(options.space)
    engine = find_engine(options.engine) if options.engine else best_engine(options.device)
    check_engine(engine, options.precision, options.device)
    check_threads(engine, options)
    check_memory(engine, options, options.image_size or space.eval_size)
    schedule = schedule or plan_rounds(options.duration_s, warmup_ms=options.warmup_ms, rounds=options.rounds)
    with bench_of(options, engine, options.precision) as bench:
        return _TableJob(options, space, bench, schedule, say, seams or Seams()).run()


class _TableJob:
    """One table: a space at one size in one engine."""

    def __init__(
        self,
        options: LatencyTableOptions,
        space: Space,
        bench: Bench,
        schedule: Schedule,
        say: Callable[[str], None],
        seams: Seams,
    ) -> None:
        self.options, self.space, self.bench, self.schedule = options, space, bench, schedule
        self.say, self.seams = say, seams
        self.image_size = options.image_size or space.eval_size
        self.blocks = space.blocks(self.image_size)
        self.device = device_name(bench)

    def run(self) -> Result:
        """What is not there yet is measured; the result on disk grows with it."""
        data = None if self.options.again else self._earlier()
        with GpuTrace(self.device) as trace:
            for grown in self._parts(data):
                data = grown
                write_result(self.options.out, self._result(data))
            assert data is not None  # a space has two parts at least
            wanted = self._networks()
            if wanted and [row.candidate for row in data.whole] != list(wanted.values()):
                data = self._with_whole(data, wanted)
        data = replace(data, gpu=trace.to_dict(), gpu_reason=trace.reason)
        return self._result(data)

    def _earlier(self) -> LatencyTableData | None:
        """The data of the result that is there.

        Raises:
            ZooError: it is damaged, or of other settings.
        """
        path = result_path(self.options.out, self._result(None))
        if not path.is_file():
            return None
        try:
            (kept,) = read_results([path], (KIND,))
            data = LatencyTableData.from_dict(kept.data)
        except (ZooError, RowError) as error:
            raise ZooError(f"{path} cannot be gone on with: {error}", AGAIN) from error
        if data.table.space_sha256 != self.space.sha256 or kept.settings["schedule"] != self.schedule.to_dict():
            raise ZooError(f"{path} was begun for another space, or with other durations.", AGAIN)
        if len(data.parts) < data.asked:
            self.say(f"{len(data.parts)} of {data.asked} parts are there; going on")
        return data

    def _parts(self, data: LatencyTableData | None) -> Iterator[LatencyTableData]:
        """The data after every further group of parts."""
        variant = self.space.variant(next(self.space.candidates()))
        known = set(data.table.by_block) if data else set()
        left = [block for block in self.blocks if block not in known]
        for group in groups_of(left):
            measured = measure_group(
                group,
                variant,
                self.bench,
                self.schedule,
                num_classes=NUM_CLASSES,
                open_form=self.seams.open_form,
                when=self.seams.when,
            )
            data = self._grown(data, measured)
            self.say(f"{len(data.parts)} of {data.asked} parts, the last one {group[-1]}")
            yield data

    def _grown(self, data: LatencyTableData | None, measured: TimedGroup) -> LatencyTableData:
        timed = measured.timed
        frame_ms = median_interval(timed.rounds.medians_ms(FRAME))[0]
        parts = tuple(
            PartRow(
                frame_ms=frame_ms,
                max_error=timed.errors[str(row.block)],
                rounds=len(timed.rounds.tracks[0].visits),
                robbed_rounds=len(timed.rounds.robbed_rounds),
                quiet=timed.rounds.quiet,
            )
            for row in measured.rows
        )
        if data is None:  # the first group is of stems, whose frame is the call of nothing
            table = LatencyTable(
                space=self.space.id,
                space_sha256=self.space.sha256,
                engine=self.bench.engine.id,
                precision=self.bench.precision,
                threads=timed.threads,
                image_size=self.image_size,
                batch_size=self.bench.batch_size,
                num_classes=NUM_CLASSES,
                call_ms=frame_ms,
                rows=measured.rows,
            )
            return LatencyTableData(
                space=self.space,
                backend=timed.engine,
                table=table,
                asked=len(self.blocks),
                parts=parts,
                seed=self.options.seed,
            )
        if data.backend != timed.engine:
            raise ZooError(f"The table was begun in {data.backend}, and this is {timed.engine}.", AGAIN)
        table = replace(data.table, rows=(*data.table.rows, *measured.rows))
        return replace(data, table=table, parts=(*data.parts, *parts))

    def _networks(self) -> dict[str, Candidate]:
        """Networks that are measured as a whole, by name: published tables that the space has, and drawn ones."""
        found: dict[str, Candidate] = {}
        if not self.options.networks:
            return found
        for model in REFERENCES:
            try:
                candidate = self.space.candidate_of(find_variant(model))
            except ZooError as error:
                self.say(f"not among the whole networks: {error}")
                continue
            if candidate not in found.values():  # in a small space two tables may be the same network
                found[model] = candidate
        rng = np.random.default_rng(self.options.seed)
        drawn: dict[str, Candidate] = {}
        # A small space may have fewer networks than are asked for.
        for _ in range(100 * self.options.networks):
            candidate = self.space.draw(rng)
            if candidate not in found.values():
                drawn[candidate.code] = candidate
            if len(drawn) == self.options.networks:
                break
        return found | drawn

    def _with_whole(self, data: LatencyTableData, wanted: dict[str, Candidate]) -> LatencyTableData:
        """The data with whole networks, timed in turn."""
        prepared = {}
        for name, candidate in wanted.items():
            self.say(f"{name}: preparing the whole network")
            variant = self.space.variant(candidate)
            prepared[name] = prepare_network(variant, self.bench, image_size=self.image_size, name=variant.id)
        self.say(f"timing {len(prepared)} whole networks in turn")
        timed = time_prepared(prepared, self.bench, self.schedule, open_form=self.seams.open_form, when=self.seams.when)
        rows = tuple(self._whole_row(data.table, name, candidate, timed.rounds) for name, candidate in wanted.items())
        return replace(data, whole=rows, whole_rounds=timed.rounds, seed=self.options.seed)

    def _whole_row(self, table: LatencyTable, name: str, candidate: Candidate, rounds: Rounds) -> WholeRow:
        ms, low_ms, high_ms = median_interval(rounds.medians_ms(name))
        sum_ms, sum_low_ms, sum_high_ms = table.sum_ms(self.space.variant(candidate))
        return WholeRow(
            name=name,
            candidate=candidate,
            drawn=name == candidate.code,
            ms=ms,
            low_ms=low_ms,
            high_ms=high_ms,
            sum_ms=sum_ms,
            sum_low_ms=sum_low_ms,
            sum_high_ms=sum_high_ms,
        )

    def _result(self, data: LatencyTableData | None) -> Result:
        """The result so far; without data it says where it is kept."""
        subject = Subject(
            name=f"{self.space.id}-{self.image_size}px-{self.bench.engine.id}",
            batch_sizes=(self.bench.batch_size,),
            precision=self.bench.precision,
            threads=self.options.threads,
            sha256=self.space.sha256,
        )
        return Result(
            kind=KIND,
            name=f"{subject.name}-b{self.bench.batch_size}-{self.bench.precision}",
            environment=measured_on(self.device),
            settings={
                "subjects": [subject.to_dict()],
                "schedule": self.schedule.to_dict(),
                "clock": CLOCK,
                "threads": data.table.threads if data else None,
                "mode": f"{self.bench.engine.name}, through the runner that ships, answers compared with PyTorch first",
                "input": INPUT,
                "overhead": "a call that computes nothing (one channel of 4 × 4 px, 16 answers) is in every sum once; "
                "of every other part the same form without it, made of the same map, is taken off round by round",
            },
            data=data.to_dict() if data else {},
        )
