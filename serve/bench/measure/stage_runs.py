"""Owns `zoo bench stages` and `fusion` from what a user asked for to results; measuring is its neighbours'."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from serve.bench.engine_rows import EngineRow, find_engine
from serve.bench.measure.crossover import measure_map
from serve.bench.measure.engines import Bench, best_engine, check_engine
from serve.bench.measure.fusion import measure_inference, measure_training
from serve.bench.measure.isolated import measure_stages
from serve.bench.measure.memory import check_batch
from serve.bench.measure.places import places
from serve.bench.measure.roofline import measure_peaks
from serve.bench.measure.stage_rows import Cell, Exchange, InPlace
from serve.bench.measure.stages import StageRow, StagesData
from serve.bench.measure.table3 import FusionData
from serve.bench.measure.whole import check_network, measure_exchanges, measure_in_place, prepare_network
from serve.bench.stage_options import METHODS, FusionOptions, LatencyTableOptions, SeChoice, StagesOptions
from zoo.errors import ZooError
from zoo.machine import choose_device, cuda_driver, processor_name
from zoo.measure.gpu_trace import GpuTrace
from zoo.measure.rounds import plan_rounds
from zoo.measure.timing import Schedule
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS
from zoo.results import Result, Subject, measured_on, row_sha256
from zoo.weights.resolve import find_model_variant
from zoo.wording import joined

CLOCK = (
    "the host's clock (perf_counter_ns) around Runner.infer, one batch in flight; the frame around a stage taken off"
)
INPUT = "random pictures of a fixed seed; random weights with settled batch norms, residual branches damped"
Say = Callable[[str], None]


def bench_stages(
    options: StagesOptions, *, schedule: Schedule | None = None, say: Say = lambda line: None
) -> Iterator[Result]:
    """Time every stage of a network as MBConv and as Fused-MBConv: a result for each engine, precision and SE.

    Args:
        options: its model is a variant's id or a checkpoint, whose row is used; the weights are not.
        schedule: instead of the one that the options ask for.
        say: is told what is being done, one line at a time.

    Raises:
        ZooError and its kinds: as `find_model_variant`, `check_engine` and what measures.
    """
    variant = find_model_variant(options.model)
    if variant.is_resnet:
        raise ZooError(f"{variant.id} has no MBConv stages to compare.", "`zoo bench latency` times it as a whole.")
    _check_stages(variant, options)
    engines = [find_engine(id) for id in dict.fromkeys(options.engines)] or [best_engine(options.device)]
    asked = list(
        product(engines, dict.fromkeys(options.precisions or ("fp32",)), dict.fromkeys(options.se or ("paper",)))
    )
    for engine, precision, _ in asked:
        check_engine(engine, precision, options.device)
        check_threads(engine, options)
        check_memory(engine, options, options.image_size or variant.eval_size, variant)
    schedule = schedule or _schedule(options)
    for engine, precision, se in asked:
        say(f"{variant.id} in {engine.name}, {precision}")
        with bench_of(options, engine, precision) as bench:
            yield _StagesJob(variant, options, bench, schedule, se, say).result()


class _StagesJob:
    """One result: a network's stages in one engine, one precision, one choice of squeeze-and-excitation."""

    def __init__(
        self, variant: Variant, options: StagesOptions, bench: Bench, schedule: Schedule, se: SeChoice, say: Say
    ) -> None:
        self.variant, self.options, self.bench, self.schedule, self.say = variant, options, bench, schedule, say
        self.image_size = options.image_size or variant.eval_size
        self.forms: dict[str, Any] = {"se": se, "kernel_size": options.kernel_size}
        self.methods = options.by or METHODS
        self.notes: list[str] = []

    @property
    def _way(self) -> str | None:
        """The methods, in words, where they are not all: such a result leaves one of all of them alone."""
        used = [method for method in METHODS if method in ("isolated", *self.methods)]
        return None if len(used) == len(METHODS) else " ".join(used)

    def result(self) -> Result:
        device = device_name(self.bench)
        with GpuTrace(device) as trace:
            self.say("measuring the peaks of the roofline")
            peaks = measure_peaks(self.variant, self.bench)
            rows = tuple(
                measure_stages(
                    self.variant, self.bench, self.schedule, image_size=self.image_size, say=self.say, **self.forms
                )
            )
            in_place, exchange = self._whole(rows)
            cells = tuple(self._maps())
        data = StagesData(
            variant=self.variant,
            image_size=self.image_size,
            batch_size=self.bench.batch_size,
            precision=self.bench.precision,
            rows=rows,
            gpu=trace.to_dict(),
            gpu_reason=trace.reason,
            engine=self.bench.engine.id,
            peaks=peaks,
            in_place=in_place,
            exchange=exchange,
            crossover=cells,
            notes=tuple(self.notes),
            **self.forms,
        )
        return self._kept(data, device)

    def _whole(self, rows: tuple[StageRow, ...]) -> tuple[InPlace | None, tuple[Exchange, ...]]:
        """The network in place and by exchange, as far as asked for."""
        engine, by_layer = self.bench.engine, "in-place" in self.methods
        if by_layer and engine.profiler is None:
            self.notes.append(f"Not in place: of {engine.name} {engine.why}.")
            by_layer = False
        if not by_layer and "exchange" not in self.methods:
            return None, ()
        self.say(f"making {self.variant.id} as a whole")
        own = prepare_network(self.variant, self.bench, image_size=self.image_size, name="own")
        pictures = check_network(own, self.bench, self.variant.id)
        in_place = measure_in_place(own, self.bench, self.schedule, pictures) if by_layer else None
        if "exchange" not in self.methods:
            return in_place, ()
        exchanges = measure_exchanges(
            self.variant,
            own,
            self.bench,
            self.schedule,
            pictures,
            stage_ms=[row.form(row.paper_operator).ms for row in rows],
            in_place=by_layer,
            say=self.say,
            **self.forms,
        )
        return in_place, tuple(exchanges)

    def _maps(self) -> Iterator[Cell]:
        of_index = {place.index: place for place in places(self.variant, self.image_size)}
        for index in self.options.map_stages:
            self.say(f"mapping around stage {index}")
            yield from measure_map(self.variant, of_index[index], self.bench, self.schedule, say=self.say, **self.forms)

    def _kept(self, data: StagesData, device: str) -> Result:
        threads = data.rows[0].rounds.threads if data.rows[0].rounds else None
        words = {"both": "-se-both", "none": "-se-none", "paper": ""}[data.se]
        words += f"-k{data.kernel_size}" if data.kernel_size else ""
        subject = Subject(
            name=f"{self.variant.id}-{self.image_size}px-{data.engine}{words}",
            batch_sizes=(data.batch_size,),
            precision=data.precision,
            threads=data.rows[0].threads,
            sha256=None if self.variant in VARIANTS else row_sha256(self.variant),
            way=self._way,
        )
        settings = {
            "schedule": self.schedule.to_dict(),
            "clock": CLOCK,
            "threads": subject.threads,
            "process_threads": threads,
            "mode": f"{self.bench.engine.name}, through the runner that ships, answers compared with PyTorch first",
            "input": INPUT,
        }
        return Result(
            kind="stages",
            name=f"{subject.name}-b{data.batch_size}-{data.precision}",
            environment=measured_on(device),
            settings={"subjects": [subject.to_dict()], **settings},
            data=data.to_dict(),
        )


def bench_fusion(
    options: FusionOptions,
    *,
    schedule: Schedule | None = None,
    say: Say = lambda line: None,
    networks: tuple[Variant, ...] | None = None,
) -> Iterator[Result]:
    """Time the networks of the paper's Table 3, a result for each engine.

    Args:
        options: with neither pass there is nothing to do.
        schedule: instead of the one that the options ask for.
        say: is told what is being done.
        networks: instead of the table's; the first is what the others are held against.

    Raises:
        ZooError: nothing was asked for; or as what measures.
    """
    if not (options.inference or options.training):
        raise ZooError("Neither inference nor training: there is nothing to time.", "Leave one of the two options out.")
    engines = [find_engine(id) for id in dict.fromkeys(options.engines)] or [best_engine(options.device)]
    for engine in engines:
        check_engine(engine, options.precision, options.device)
        check_threads(engine, options)
        check_memory(engine, options, options.image_size)
    schedule = schedule or _schedule(options)
    given = {} if networks is None else {"networks": networks}
    for engine in engines:
        with bench_of(options, engine, options.precision) as bench:
            yield _fusion_result(options, bench, schedule, say, given)


def _fusion_result(
    options: FusionOptions, bench: Bench, schedule: Schedule, say: Say, given: dict[str, tuple[Variant, ...]]
) -> Result:
    device, size, measured = device_name(bench), options.image_size, []
    with GpuTrace(device) as trace:
        if options.inference:
            measured.append(measure_inference(bench, schedule, image_size=size, say=say, **given))
        if options.training:
            measured.append(
                measure_training(
                    schedule,
                    image_size=size,
                    batch_size=options.train_batch_size,
                    device=_kind(bench),
                    threads=options.threads,
                    say=say,
                    **given,
                )
            )
    data = FusionData(
        image_size=size,
        passes=tuple(told for told, _ in measured),
        rows=tuple(row for _, rows in measured for row in rows),
        gpu=trace.to_dict(),
        gpu_reason=trace.reason,
    )
    threads = next((told.threads for told in data.passes if told.threads), None)
    subject = Subject(
        name=f"b4-{size}px-{bench.engine.id if options.inference else measured[0][0].engine}"
        + ("" if options.training else "-inference")
        + ("" if options.inference else "-training"),
        batch_sizes=tuple(told.batch_size for told in data.passes),
        precision=options.precision,
        threads=threads,
    )
    settings = {"schedule": schedule.to_dict(), "clock": "the host's clock around whole calls", "input": INPUT}
    return Result(
        kind="fusion",
        name=f"{subject.name}-{options.precision}",
        environment=measured_on(device),
        settings={"subjects": [subject.to_dict()], **settings, "threads": threads},
        data=data.to_dict(),
    )


def _kind(bench: Bench) -> str:
    return bench.engine.device if bench.engine.device != "auto" else choose_device(bench.device)


def device_name(bench: Bench) -> str:
    """What does the work: the GPU's name, or the processor's."""
    driver = cuda_driver()
    return driver.gpus[0].name if _kind(bench) == "cuda" and driver else processor_name()


def _schedule(options: StagesOptions | FusionOptions) -> Schedule:
    return plan_rounds(options.duration_s, warmup_ms=options.warmup_ms, rounds=options.rounds)


@contextmanager
def bench_of(
    options: StagesOptions | FusionOptions | LatencyTableOptions, engine: EngineRow, precision: str
) -> Iterator[Bench]:
    """Where and how one result of these options is measured; its folder goes afterwards."""
    with tempfile.TemporaryDirectory(prefix="zoo-bench-") as folder:
        yield Bench(
            engine=engine,
            precision=precision,
            batch_size=options.batch_size,
            folder=Path(folder),
            device=options.device,
            threads=options.threads,
        )


def check_memory(
    engine: EngineRow,
    options: StagesOptions | FusionOptions | LatencyTableOptions,
    image_size: int,
    variant: Variant | None = None,
) -> None:
    """Refuse batches before anything is made that this machine has no memory for.

    Raises:
        ZooError: as `check_batch`.
    """
    sizes = [options.batch_size, options.train_batch_size if isinstance(options, FusionOptions) else 0]
    check_batch(max(sizes), image_size, on=_on(engine, options), variant=variant)


def _on(engine: EngineRow, options: StagesOptions | FusionOptions | LatencyTableOptions) -> str:
    return engine.device if engine.device != "auto" else choose_device(options.device)


def check_threads(engine: EngineRow, options: StagesOptions | FusionOptions | LatencyTableOptions) -> None:
    """Refuse --threads where they are without effect.

    Raises:
        ZooError: the engine computes on a GPU.
    """
    if options.threads and _on(engine, options) == "cuda":
        raise ZooError(
            f"--threads has no effect: {engine.name} runs on the GPU, not on the processor.", "Leave it out."
        )


def _check_stages(variant: Variant, options: StagesOptions) -> None:
    last = len(variant.stages)
    beyond = [index for index in options.map_stages if index > last]
    if beyond:
        raise ZooError(
            f"--map {joined(map(str, beyond))}: {variant.id} has stages 1 to {last}.", f"Choose one of 1 to {last}."
        )
