"""Our networks beside torchvision's and timm's: the same weights, pictures, layout and device, timed in turn.

    python benchmarks/peers.py                     the processor: small sizes, fp32
    python benchmarks/peers.py --device cuda       bf16 autocast at evaluation sizes
    python benchmarks/peers.py --exported          in ONNX Runtime, beside what PyTorch's exporters make of theirs

Two passes are timed: `forward` in evaluation mode without gradients, and `step`, forward and backward in training mode
with dropout and stochastic depth off. Nothing is compiled and nothing folded: this compares the modules as written.
Of exported graphs both take uint8 pictures, as they were decoded: ours normalises inside, NumPy does it for theirs.
A machine's pace may drift by half within a minute, so the two take turns call by call; the ratio is taken of each such
pair, and the median over all pairs is what counts, with the interval that holds it at 95 %.
"""

from __future__ import annotations

import argparse
import gc
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import timm
import torch
import torchvision
from numpy.typing import NDArray
from torch import nn

from export.contract import Contract
from export.graph import OPSET, export_onnx
from serve.bench.kinds.peers import PeerRow, PeersData, Ratio
from serve.bench.report.report import keep_result
from zoo.machine import processor_name, usable_cores
from zoo.measure.timing import Call, Schedule, Timer, pooled, time_call, time_cuda, time_in_turn
from zoo.model.network import Network
from zoo.model.variants import find_variant
from zoo.results import Result, Subject, measured_on, summarize
from zoo.weights.convert import to_network
from zoo.weights.origins import ORIGINS, Origin

HERE = Path(__file__).parent
MODULES_MODE = "channels last, eager, same weights; step is forward and backward without the optimizer"
EXPORTED_MODE = "ONNX Runtime, same weights, from a uint8 picture to logits; theirs is normalised by NumPy"


@dataclass(frozen=True)
class Case:
    """One network at one size."""

    network: str
    image_size: int
    batch_size: int


CPU_CASES = (
    Case("s", 224, 4),
    Case("b0", 224, 8),
    Case("v1-b0", 224, 8),
    Case("lite0", 224, 8),
    Case("resnet50", 224, 4),
)
EXPORTED_CASES = (Case("lite0", 224, 1), Case("b0", 224, 1), Case("s", 384, 1))
EXPORTED_BATCHES = (1, 8)
# Of exported graphs: the pass, by the exporter that made theirs.
EXPORTERS = {"exported": "dynamo", "exported-legacy": "legacy"}
LEGACY_OPSET = 17
MIN_ROUNDS = 20
GPU_CASES = (
    *(Case("s", 384, batch) for batch in (1, 32, 128)),
    Case("m", 480, 32),
    Case("b0", 224, 128),
    Case("v1-b0", 224, 128),
    Case("v1-b4", 380, 64),
    Case("lite0", 224, 128),
    Case("resnet50", 224, 128),
)


def main() -> None:
    """Measure every case against every peer that has it, and write one result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--exported", action="store_true", help="graphs in ONNX Runtime, on the processor")
    parser.add_argument("--rounds", type=int, default=100, help="calls of each network per pair and pass")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[usable_cores()], help="of ONNX Runtime, rows of each"
    )
    parser.add_argument("--only", nargs="*", help="networks to measure")
    parser.add_argument("--image-size", type=int, help="px, for a quick look; the result is named after it")
    parser.add_argument("-o", "--out", type=Path, default=HERE)
    options = parser.parse_args()
    device = torch.device(options.device)
    # On a GPU the clock is the device's, and calls queue up: there a visit is long enough for that.
    each = {"duration_ms": 0.0, "visit_warmup_iterations": 0} if device.type == "cpu" else {"duration_ms": 20_000.0}
    schedule = Schedule(rounds=options.rounds, min_iterations=options.rounds, **each)
    rows: list[PeerRow] = []
    cpu_cases = EXPORTED_CASES if options.exported else CPU_CASES
    for case in cpu_cases if device.type == "cpu" else GPU_CASES:
        if options.only and case.network not in options.only:
            continue
        if options.image_size:
            case = replace(case, image_size=options.image_size)
        for peer in ("torchvision", "timm"):
            if case.network not in ORIGINS[peer].networks:
                continue
            if options.exported:
                rows += measure_exported(case, ORIGINS[peer], options.threads, options.rounds)
            else:
                rows += measure_modules(case, ORIGINS[peer], device, schedule)
    name = torch.cuda.get_device_name() if device.type == "cuda" else processor_name()
    precision = "fp32" if device.type == "cpu" else "bf16"
    size = f"{options.image_size}px" if options.image_size else ""
    what = "exported" if options.exported else ""
    threads = torch.get_num_threads() if device.type == "cpu" else None
    if options.exported:  # with several, each row says its own
        threads = None if len(options.threads) > 1 else options.threads[0]
    subject = Subject(
        name=" ".join(filter(None, (what, *dict.fromkeys(row.network for row in rows), size))),
        precision=precision,
        threads=threads,
    )
    result = Result(
        kind="peers",
        name="-".join(filter(None, (what, precision, size))),
        environment=measured_on(name),
        settings={
            "subjects": [subject.to_dict()],
            "schedule": schedule.to_dict(),
            "threads": threads,
            "mode": EXPORTED_MODE if options.exported else MODULES_MODE,
        },
        data=PeersData(rows=tuple(rows)).to_dict(),
    )
    keep_result(result, options.out)


def measure_modules(case: Case, peer: Origin, device: torch.device, schedule: Schedule) -> list[PeerRow]:
    """Both passes of one pair of modules."""
    theirs, ours = pair(case, peer)
    rows = []
    pictures = torch.randn(case.batch_size, 3, case.image_size, case.image_size)
    pictures = pictures.to(device, memory_format=torch.channels_last)
    for network in (theirs, ours):
        network.to(device, memory_format=torch.channels_last)
    for mode, call in (("forward", forward), ("step", step)):
        for network in (theirs, ours):
            network.train(mode == "step")
        calls: list[Call] = [partial(call, network, pictures) for network in (ours, theirs)]
        rows += time_beside(case, peer, [mode], calls, schedule, time_cuda if device.type == "cuda" else time_call)
    gc.collect()
    return rows


def measure_exported(case: Case, peer: Origin, threads: Sequence[int], rounds: int) -> Iterator[PeerRow]:
    """Our graph beside those that PyTorch's two exporters make of theirs, from uint8 pictures to logits."""
    theirs, ours = pair(case, peer)
    preprocessing = ours.variant.preprocessing.at(case.image_size)
    contract = Contract(model=case.network, classes=tuple(map(str, range(1000))), preprocessing=preprocessing)
    graphs = [export_onnx(ours, contract, checkpoint={}).SerializeToString()]
    graphs += [export_plainly(theirs, case.image_size, exporter) for exporter in EXPORTERS.values()]
    mean, std = (np.float32(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    scale = 1 / std

    def call_ours(session: onnxruntime.InferenceSession, pictures: NDArray[np.uint8]) -> object:
        return session.run(None, {"pictures": pictures})

    def call_theirs(session: onnxruntime.InferenceSession, pictures: NDArray[np.uint8]) -> object:
        # The fastest of NumPy's ways: planes first, then in place.
        planes = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2), dtype=np.float32)
        planes -= mean
        planes *= scale
        return session.run(None, {"pictures": planes})

    for batch_size in EXPORTED_BATCHES:
        shape = (batch_size, case.image_size, case.image_size, 3)
        pictures = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        # A call of a batch tells as much as a call of one picture, and takes as many times as long.
        n = max(rounds // batch_size, min(rounds, MIN_ROUNDS))
        schedule = Schedule(rounds=n, min_iterations=n, duration_ms=0.0, visit_warmup_iterations=0)
        for number in threads:
            sessions = [open_session(graph, number) for graph in graphs]
            ways = (call_ours, *[call_theirs] * len(EXPORTERS))
            calls: list[Call] = [partial(way, one, pictures) for way, one in zip(ways, sessions, strict=True)]
            batch = replace(case, batch_size=batch_size)
            yield from time_beside(batch, peer, list(EXPORTERS), calls, schedule, time_call, threads=number)


def open_session(graph: bytes, threads: int) -> onnxruntime.InferenceSession:
    """A session on the processor, which waits for its next call without spinning: others take turns with it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def export_plainly(network: nn.Module, image_size: int, exporter: str) -> bytes:
    """What `torch.onnx.export` makes of a network that takes normalised planes, as timm's onnx_export.py calls it."""
    batch = torch.export.Dim("batch", min=1)
    dynamic = (
        {"dynamic_shapes": ({0: batch},)} if exporter == "dynamo" else {"dynamic_axes": {"pictures": {0: "batch"}}}
    )
    made = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters' own internals
        torch.onnx.export(
            network.eval(),
            (torch.zeros(2, 3, image_size, image_size),),
            made,
            dynamo=exporter == "dynamo",
            opset_version=OPSET if exporter == "dynamo" else LEGACY_OPSET,
            input_names=["pictures"],
            verbose=False,
            **dynamic,  # type: ignore[arg-type]
        )
    return made.getvalue()


def time_beside(
    case: Case,
    peer: Origin,
    modes: Sequence[str],
    calls: Sequence[Call],
    schedule: Schedule,
    timer: Timer,
    threads: int | None = None,
) -> list[PeerRow]:
    """Time ours and one or more of theirs in turn, print what came out, and give a row for each of theirs."""
    ours, *others = time_in_turn(calls, schedule, timer)
    of_ours, rows = summarize(pooled(ours)), []
    for mode, theirs in zip(modes, others, strict=True):
        of_theirs = summarize(pooled(theirs))
        ratios = [median(one.ms) / median(other.ms) for one, other in zip(ours, theirs, strict=True)]
        low, ratio, high = median_with_interval(ratios)
        print(
            f"{case.network:9} {case.image_size} px, batch {case.batch_size:3}, "
            f"threads {threads or torch.get_num_threads():2}  {mode:15} ours {of_ours.p50_ms:8.2f}  "
            f"{peer.id:11} {of_theirs.p50_ms:8.2f}  ratio {ratio:.3f} ({low:.3f} to {high:.3f})  "
            f"n {of_ours.n} + {of_theirs.n}",
            flush=True,
        )
        rows.append(
            PeerRow(
                **asdict(case),
                peer=peer.id,
                peer_name=peer.networks[case.network],
                mode=mode,
                threads=threads,
                ours_over_theirs=Ratio(p50=ratio, low=low, high=high, n=len(ratios)),
                ours=of_ours,
                theirs=of_theirs,
            )
        )
    return rows


def median_with_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Low end, median and high end: the order statistics that hold the true median with 95 % (binomial, normal form).

    Of 100 values the 40th and the 61st. No shape of the distribution is assumed.
    """
    ascending, n = sorted(values), len(values)
    reach = 1.96 * math.sqrt(n) / 2
    low = max(math.floor(n / 2 - reach) - 1, 0)
    return ascending[low], median(ascending), ascending[n - 1 - low]


def pair(case: Case, peer: Origin) -> tuple[nn.Module, Network]:
    """The peer's network with random weights, and ours with the same; regularisation off in both."""
    constructor = peer.constructor.format(network=peer.networks[case.network], num_classes=1000)
    torch.manual_seed(0)
    theirs: nn.Module = eval(constructor, {"torchvision": torchvision, "timm": timm})
    settle(theirs, case.image_size)
    state = {key: value.clone() for key, value in theirs.state_dict().items()}
    variant = replace(find_variant(case.network), batch_norm_eps=peer.eps_of(case.network))
    ours, _ = to_network(state, variant, peer, name=peer.networks[case.network])
    ours.requires_grad_(True)
    ours.set_dropout(0.0)
    ours.set_stochastic_depth(0.0)
    for module in theirs.modules():
        if isinstance(module, nn.Dropout | torchvision.ops.StochasticDepth):
            module.p = 0.0
    return theirs, ours


@torch.no_grad()
def settle(network: nn.Module, image_size: int) -> None:
    """Give batch norms the statistics of real activations: without them evaluation times denormal numbers."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    network.train()(torch.randn(4, 3, image_size, image_size))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def forward(network: nn.Module, pictures: torch.Tensor) -> None:
    """One forward pass."""
    with torch.autocast(pictures.device.type, torch.bfloat16, enabled=pictures.is_cuda):
        network(pictures)


def step(network: nn.Module, pictures: torch.Tensor) -> None:
    """One forward and backward pass."""
    with torch.autocast(pictures.device.type, torch.bfloat16, enabled=pictures.is_cuda):
        loss = network(pictures).float().square().mean()
    for parameter in network.parameters():
        parameter.grad = None
    loss.backward()


if __name__ == "__main__":
    main()
