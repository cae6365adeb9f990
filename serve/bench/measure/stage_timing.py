"""Owns stages as modules on a device: built in one form, folded, checked, and timed in turn; it judges no winner.

What is timed is a whole stage as an engine would hold it: evaluation mode, batch norm folded into the convolutions,
channels last. On a GPU it is a CUDA graph between CUDA events, so that Python and launches are outside; on a processor
it is a call between two readings of the clock. It is not the latency of an engine: PyTorch runs one stage at a time
with activations as kernels of their own, while TensorRT fuses them and chooses kernels for the whole network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from serve.bench.measure.stages import OPERATORS, StagePlace, StageRow, form_of, places, stage_row
from serve.bench.measure.timing import Call, Schedule, time_call, time_cuda, time_in_turn
from serve.bench.options import StagePrecision
from zoo.errors import MissingCapabilityError, VerdictError, ZooError
from zoo.model.efficientnet import initialize
from zoo.model.layers import ConvNormAct, StageModule
from zoo.model.norms import settle_batch_norms
from zoo.model.spec import Operator, Variant
from zoo.wording import OPERATOR_NAMES

# tf32 stores fp32 and multiplies with 10 bits of mantissa on tensor cores; PyTorch's own default for convolutions.
DTYPES: dict[StagePrecision, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
_SEED = 0
# Values per channel that batch-norm statistics are taken from; with 8 (two maps of 2 × 2) fifteen blocks amplify
# the error of each other's statistics a thousandfold.
_STATISTICS_VALUES = 1024


def build_form(variant: Variant, place: StagePlace, operator: Operator, device: torch.device) -> nn.Module:
    """Build a stage in one form: initialised as the network is, in evaluation mode, fp32, batch norm not yet folded.

    The batch-norm statistics are those of random input, so activations keep the scale they have in a trained network;
    without that the deepest stages would time denormal or overflowing numbers.
    """
    torch.manual_seed(_SEED)
    module = StageModule(variant, form_of(variant, place.stage, operator), place.in_channels, variant.padding)
    initialize(module)
    module.to(device)
    settle_batch_norms(module, [_random_input(place, -(-_STATISTICS_VALUES // place.out_size**2)).to(device)])
    return module


def fold_batch_norms(module: nn.Module) -> int:
    """Fold every batch norm into the convolution before it, in place; returns how many were folded.

    A convolution without bias and its norm become one convolution with a bias; the outputs stay the same up to
    rounding. Every engine builder does this.
    """
    units = [unit for unit in module.modules() if isinstance(unit, ConvNormAct)]
    for unit in units:
        conv, norm = unit.get_submodule("conv"), unit.get_submodule("norm")
        unit.conv = fuse_conv_bn_eval(conv, norm)  # type: ignore[type-var, arg-type]
        del unit.norm
    return len(units)


def record_graph(module: nn.Module, x: Tensor, *, cuda: Any = torch.cuda) -> Callable[[], Tensor]:
    """Record `module(x)` as a CUDA graph; calling the result replays it and returns the tensor it writes to.

    The passes before recording run on a side stream, where cuDNN chooses its kernels and allocates its workspaces;
    neither is allowed while recording.
    """
    side = cuda.Stream()
    side.wait_stream(cuda.current_stream())
    with cuda.stream(side):
        for _ in range(3):
            module(x)
    cuda.current_stream().wait_stream(side)
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        out: Tensor = module(x)

    # The graph holds addresses, not references: the weights and the input must outlive it.
    def replay(alive: tuple[nn.Module, Tensor] = (module, x)) -> Tensor:
        graph.replay()
        return out

    return replay


def measure_stages(
    variant: Variant,
    *,
    image_size: int,
    batch_size: int,
    device: torch.device,
    precision: StagePrecision,
    schedule: Schedule,
    on_row: Callable[[StageRow], None] = lambda row: None,
) -> list[StageRow]:
    """Time every stage of `variant` in both forms, in interleaved rounds; `on_row` is given each row when it is known.

    Raises:
        MissingCapabilityError: tf32 without a GPU.
        VerdictError: a form whose output is misshapen or not finite; it is not timed.
        ZooError: the batch does not fit in the device's memory.
    """
    if precision == "tf32" and device.type != "cuda":
        raise MissingCapabilityError("tf32 is a mode of NVIDIA tensor cores.", "Use fp32 or bf16 on a processor.")
    timer = time_cuda if device.type == "cuda" else time_call
    rows = []
    with _convolutions(precision), torch.no_grad():
        for place in places(variant, image_size):
            try:
                calls = [_checked_call(variant, place, op, batch_size, device, precision) for op in OPERATORS]
                rows.append(stage_row(variant, place, batch_size, time_in_turn(calls, schedule, timer)))
            except torch.OutOfMemoryError as error:
                raise ZooError(
                    f"Stage {place.index} at {image_size} px and batch {batch_size} does not fit in memory.",
                    "Pass a smaller --batch-size or --image-size.",
                ) from error
            on_row(rows[-1])
    return rows


def _checked_call(
    variant: Variant,
    place: StagePlace,
    operator: Operator,
    batch_size: int,
    device: torch.device,
    precision: StagePrecision,
) -> Call:
    """A form ready to be timed, after one look at its output."""
    module = build_form(variant, place, operator, device)
    fold_batch_norms(module)
    dtype, layout = DTYPES[precision], torch.channels_last
    module.to(dtype).to(memory_format=layout)
    x = _random_input(place, batch_size).to(device=device, dtype=dtype, memory_format=layout)
    call = record_graph(module, x) if device.type == "cuda" else partial(module, x)
    out = call()
    expected = (batch_size, place.stage.out_channels, place.out_size, place.out_size)
    # SYNC: one reading back per form, before anything is timed.
    if tuple(out.shape) != expected or not bool(torch.isfinite(out).all()):
        raise VerdictError(
            f"Stage {place.index} as {OPERATOR_NAMES[operator]} in {precision} gives {tuple(out.shape)} with "
            f"non-finite numbers or a wrong shape; expected {expected}, all finite.",
            "It was not timed. Try another --precision.",
        )
    return call


def _random_input(place: StagePlace, batch_size: int) -> Tensor:
    """The same numbers for both forms and every run: (N, C, H, W) fp32, normal."""
    generator = torch.Generator().manual_seed(_SEED)
    return torch.randn(batch_size, place.in_channels, place.in_size, place.in_size, generator=generator)


@contextmanager
def _convolutions(precision: StagePrecision) -> Iterator[None]:
    """Let cuDNN try its kernels for every shape, and let fp32 mean fp32; put both settings back afterwards."""
    cudnn: Any = torch.backends.cudnn  # its per-operator settings are not in torch's type stubs
    before = cudnn.benchmark, cudnn.conv.fp32_precision
    cudnn.benchmark, cudnn.conv.fp32_precision = True, "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.conv.fp32_precision = before
