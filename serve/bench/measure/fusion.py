"""Owns the four networks of the paper's Table 3 timed in turn: inference in an engine, training steps in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from statistics import median

import torch
from torch.nn import functional as F

from serve.bench.measure.engines import Bench, check_answers, forget_compiled, open_prepared, reference_answers
from serve.bench.measure.pictures import random_pictures
from serve.bench.measure.ratio import paired_ratio
from serve.bench.measure.table3 import TABLE_3, FusionRow, Pass, PassData
from serve.bench.measure.whole import prepare_network
from zoo.measure.rounds import Rounds, measure_rounds
from zoo.measure.timing import Call, Schedule
from zoo.measure.torch_threads import torch_threads
from zoo.model.build import FromPictures, build_network
from zoo.model.counts import parts
from zoo.model.spec import Variant
from zoo.model.variants import find_variant

# Any rate: what a step costs does not depend on it. The paper's optimizer has one state more a weight.
_RATE, _MOMENTUM = 0.01, 0.9
NETWORKS = tuple(find_variant(row.variant) for row in TABLE_3)


def measure_inference(
    bench: Bench,
    schedule: Schedule,
    *,
    image_size: int,
    networks: tuple[Variant, ...] = NETWORKS,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[PassData, list[FusionRow]]:
    """Compare every network with PyTorch, then time all of them in turn in the engine.

    Raises:
        VerdictError: a network whose answers are not PyTorch's. ZooError: as the exporter, builder and runner.
    """
    forget_compiled(bench)
    pictures = random_pictures(bench.batch_size, image_size)
    with ExitStack() as stack:
        calls: dict[str, Call] = {}
        backend, threads = "", None
        for variant in networks:
            say(f"{variant.id}: preparing for {bench.engine.name}")
            prepared = prepare_network(variant, bench, image_size=image_size, name=variant.id)
            reference = reference_answers(prepared.network, prepared.contract, pictures)
            runner = stack.enter_context(open_prepared(prepared, bench))
            check_answers(runner, reference, pictures, precision=bench.precision, name=variant.id)
            calls[variant.id] = partial(runner.infer, pictures)
            backend, threads = runner.backend, runner.threads
        say("timing inference")
        rounds = measure_rounds(calls, schedule)
    told = PassData(
        done="inference",
        engine=bench.engine.id,
        backend=backend,
        precision=bench.precision,
        batch_size=bench.batch_size,
        threads=threads,
        rounds=rounds,
    )
    return told, fusion_rows(networks, rounds, done="inference", batch_size=bench.batch_size, image_size=image_size)


def measure_training(
    schedule: Schedule,
    *,
    image_size: int,
    batch_size: int,
    device: str,
    threads: int | None = None,
    networks: tuple[Variant, ...] = NETWORKS,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[PassData, list[FusionRow]]:
    """Time whole steps in turn: forward, loss, backward, SGD with momentum; on a GPU in bf16 autocast."""
    with torch_threads(threads) as in_effect:
        say("timing training steps")
        calls = {variant.id: training_step(variant, batch_size, image_size, device) for variant in networks}
        rounds = measure_rounds(calls, schedule)
    told = PassData(
        done="training",
        engine="torch",
        backend=f"torch {torch.__version__}, eager",
        precision="bf16 autocast" if device == "cuda" else "fp32",
        batch_size=batch_size,
        threads=in_effect if device == "cpu" else None,
        rounds=rounds,
    )
    return told, fusion_rows(networks, rounds, done="training", batch_size=batch_size, image_size=image_size)


def training_step(variant: Variant, batch_size: int, image_size: int, device: str) -> Call:
    """One step of a network on random pictures in the device's memory, finished when it returns."""
    model = FromPictures(build_network(variant), variant.preprocessing.at(image_size)).train().to(device)
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=_RATE, momentum=_MOMENTUM)
    pictures = torch.from_numpy(random_pictures(batch_size, image_size, variant.channels)).to(device)
    classes = torch.zeros(batch_size, dtype=torch.long, device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = F.cross_entropy(model(pictures).float(), classes)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()  # SYNC: the host's clock is read next

    return step


def fusion_rows(
    networks: tuple[Variant, ...], rounds: Rounds, *, done: Pass, batch_size: int, image_size: int
) -> list[FusionRow]:
    """Rows of rounds whose tracks are named after the networks; the first one is what the others are held against."""
    base = rounds.medians_ms(networks[0].id)

    def rows() -> Iterator[FusionRow]:
        for variant in networks:
            listed, medians = list(parts(variant, image_size=image_size)), rounds.medians_ms(variant.id)
            yield FusionRow(
                variant=variant.id,
                done=done,
                num_params=sum(part.num_params for part in listed),
                macs=sum(part.macs for part in listed),
                ms=median(medians),
                pictures_per_second=1000 * batch_size / median(medians),
                latency=rounds.summary(variant.id),
                ratio=None if variant is networks[0] else paired_ratio(medians, base),
            )

    return list(rows())
