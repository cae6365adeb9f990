"""Owns how an artifact becomes an engine: its runners, its largest batch, what its passport says; it serves none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from export.backends import Backend, choose_backend
from export.passport import passport_path, read_passport
from export.runners.open import open_runner
from export.runners.runner import Runner
from export.signature import require_signature
from serve.core.batcher import Batcher
from serve.core.slot import Engine, EngineInfo
from serve.layout import Layout, tuned_layout, usual_layout
from serve.options import ServeOptions
from zoo.errors import ArtifactError, ZooError
from zoo.files import sha256_of
from zoo.machine import cuda_driver, usable_cores
from zoo.weights.mistaken import EXPORTED_SUFFIXES

# On a processor larger batches gain nothing (measured: 190 pictures/s at 8, 192 at 16) and cost latency; a GPU fills.
DEFAULT_MAX_BATCH_SIZE = {"cpu": 8, "gpu": 32}
# Eight full batches per instance: under a second of waiting on either, and room for a burst.
QUEUED_BATCHES = 8


def open_engine(options: ServeOptions, say: Callable[[str], None] = lambda line: None) -> Engine:
    """Open the artifact as often as there are instances, behind one queue; its threads are not started.

    Args:
        options: what to open, and how.
        say: is told in a line what a measurement finds.

    Raises:
        ZooError: as `export.runners.open.open_runner`; or it does not take such batches, or is not signed as required.
    """
    artifact = options.engine
    if artifact is None:
        raise ArtifactError(
            "No artifact to serve.", "Name an .onnx, a .plan, a checkpoint, a model's id, or --models DIR."
        )

    def open_one(threads: int | None) -> Runner:
        # Each time: an instance that is opened again, hours later, opens what lies there then.
        if options.require_signature:
            require_signature(artifact, options.require_signature)
        return open_runner(artifact, device=options.device, threads=threads, backend=options.backend)

    layout = choose_layout(options, open_one, say)
    reopen = partial(open_one, layout.threads)
    with ExitStack() as opened:
        runners = [opened.enter_context(reopen()) for _ in range(layout.instances)]
        max_batch_size = choose_max_batch_size(runners[0], options.max_batch_size)
        batcher = Batcher(
            runners,
            queue_capacity=options.queue_capacity or QUEUED_BATCHES * max_batch_size * layout.instances,
            max_batch_size=max_batch_size,
            max_queue_delay_ms=options.max_queue_delay_ms,
            preferred_batch_sizes=options.preferred_batch_sizes,
            # An answer takes as long as its wait and its batch: on a slow engine neither may be the longer one.
            longest_batch_s=options.max_wait_ms / 1000.0,
            # A batch that takes longer than a request may take answers nobody.
            stuck_after_s=options.timeout_ms / 1000.0,
            reopen=reopen,
        )
        backend = choose_backend(artifact, options.backend)
        info = describe_engine(Path(artifact), runners[0], backend)
        if options.pictures == "quick":
            say(quick_words(Path(artifact), info))
        opened.pop_all()  # from here on the batcher frees them, and those that take their place
        at_work = ExitStack()
        at_work.callback(batcher.free)
        return Engine(batcher=batcher, contract=runners[0].contract, info=info, runners=at_work)


def choose_layout(
    options: ServeOptions, open_one: Callable[[int | None], Runner], say: Callable[[str], None]
) -> Layout:
    """How many instances there are, with how many threads.

    Raises:
        ZooError: a layout is to be measured of what is no file on a processor.
    """
    artifact = options.engine or ""
    on_processor = not artifact.endswith(".plan") and (options.device == "cpu" or cuda_driver() is None)
    cores, path = usable_cores(), Path(artifact)
    if not options.tune:
        return usual_layout(
            on_processor=on_processor, cores=cores, instances=options.instances, threads=options.threads
        )
    if not on_processor or not path.is_file():
        raise ZooError(
            "--tune finds a layout for a file on a processor.", "Leave it out, or name an .onnx and --device cpu."
        )
    return tuned_layout(path, choose_backend(artifact, options.backend).id, cores, open_one, say)


def describe_engine(artifact: Path, runner: Runner, backend: Backend) -> EngineInfo:
    """What is known of an artifact; its passport adds to it if it is there and speaks of this very file.

    Raises:
        ArtifactError: the passport is damaged.
    """
    info = EngineInfo(artifact=artifact.name, backend=runner.backend, device=runner.device)
    if artifact.suffix not in (".onnx", ".plan") or not passport_path(artifact).is_file():
        return info
    passport = read_passport(artifact)
    card = passport.files.onnx if artifact.suffix == ".onnx" else passport.files.plan
    if card is None or card.sha256 != sha256_of(artifact):
        return info
    return replace(info, precision=backend.precision_of(card.precision), random_weights=passport.random_weights)


def quick_words(artifact: Path, info: EngineInfo) -> str:
    """What quick pictures do to an artifact's answers, by its passport.

    Raises:
        ArtifactError: nobody has measured it, and the weights are not random, whose answers mean nothing anyway.
    """
    passport = read_passport(artifact) if passport_path(artifact).is_file() else None
    if passport and passport.quick:
        return f"Quick pictures: {passport.quick.summary()}."
    if info.random_weights:
        return "Quick pictures: nothing is known of their effect, and the weights are random."
    exported = artifact.suffix in EXPORTED_SUFFIXES
    raise ArtifactError(
        f"What quick pictures do to the answers of {artifact.name} was not measured.",
        f"{'' if exported else 'Export it first; '}`zoo evaluate {artifact if exported else 'MODEL.onnx'} --pictures "
        "quick` measures it and writes it into the passport.",
    )


def choose_max_batch_size(runner: Runner, asked: int | None) -> int:
    """The largest batch to form: what was asked for, else what suits the device and fits the engine.

    Raises:
        ArtifactError: more than the engine takes.
    """
    most = runner.max_batch_size
    if asked is None:
        default = DEFAULT_MAX_BATCH_SIZE["cpu" if runner.device == "CPU" else "gpu"]
        return default if most is None else min(default, most)
    if most is not None and asked > most:
        raise ArtifactError(
            f"{Path(runner.artifact).name} takes at most {most} pictures at once, not {asked}.",
            f"Use --max-batch-size {most}, or export it with a larger batch profile.",
        )
    return asked
