"""Owns what each precision is: its id, what turns a graph into it, and the error it may cost; it builds no engine.

Precision belongs to the graph, because TensorRT 11 has no precision flags: an engine is built strongly typed, from
the types the nodes have. A new precision is a row here and a file beside it. The rows import nothing heavy, so that
the command line and the docs can read them.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from export.contract import Opset
from zoo.errors import look_up
from zoo.rows import Matching, NotNegative, Positive, Row, Share, Text

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True, kw_only=True)
class Tolerance(Row):
    """How far a candidate's logits may be from the reference's, as shares of the largest reference logit.

    `tie_margin` is such a share too: where the reference prefers its own first class to the candidate's by no more
    than this, both answers are right and the disagreement does not count. It is a typical error of the precision, far
    below `max_error`, so that a single large error that changes an answer still fails. With a margin of twice
    `max_error` the check of answers would say nothing that the check of errors does not say.

    Of 8 bits an answer may really change. There `least_agreement` is the share of pictures, ties among them, whose
    answers have to stay, and `least_cosine` the cosine of all logits, each class about its mean, with the reference's.
    """

    max_error: Positive
    mean_error: Positive
    tie_margin: NotNegative
    least_agreement: Share = 1.0
    least_cosine: Share = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; where every answer has to stay they are those of the first version."""
        fields = super().to_dict()
        return fields if self.least_agreement < 1 else {name: fields[name] for name in list(fields)[:3]}


@dataclass(frozen=True, kw_only=True)
class Precision(Row):
    """One numeric form a graph can have.

    `transform` names the function that makes it, as "module:function"; "" is the graph as it was exported. The
    function takes and returns a `ModelProto` and leaves its argument alone. `stand_in` names one that makes the graph
    that ONNX Runtime compares in its place, where it cannot run this precision. One that is `calibrated` needs
    pictures, and is made by `export.precision.quantize`. One `of_plans` is no form of a graph: TensorRT computes the
    graph as it was exported in it. `least_capability` is the
    oldest compute capability whose GPUs compute in it, `first_opset` the first version of ONNX's operators that has it.
    """

    id: Text
    transform: Annotated[str, Matching(r"([\w.]+:\w+)?", "module:function")] = ""
    stand_in: Annotated[str, Matching(r"([\w.]+:\w+)?", "module:function")] = ""
    calibrated: bool = False
    of_plans: bool = False
    least_capability: str = ""
    first_opset: Opset = 18
    tolerance: Tolerance

    def apply(self, graph: ModelProto) -> ModelProto:
        """Return the graph in this precision; imports the transform, and with it onnx.

        Raises:
            ArtifactError: a weight that this precision cannot hold.
        """
        return _call(self.transform, graph) if self.transform else graph

    def comparable(self, graph: ModelProto) -> ModelProto:
        """Return the graph that ONNX Runtime compares: this precision's own, or its stand-in, of the exported graph."""
        return _call(self.stand_in, graph) if self.stand_in else self.apply(graph)


def _call(path: str, graph: ModelProto) -> ModelProto:
    module, _, function = path.partition(":")
    changed: ModelProto = getattr(importlib.import_module(module), function)(graph)
    return changed


# Measured with `export.parity.judge`, PyTorch on a CPU against onnxruntime 1.31 on a CPU (which rounds every fp16
# activation, so it shows the graph's own loss). Shares of the largest logit:
#                                                               fp32 max  mean     fp16 max  mean     fp16 flips
#   lite0, its ImageNet weights, 252 crops of 18 photographs     2.3e-6  1.4e-7    1.6e-2  6.7e-4   3, ≤ 0.8e-2
#   S at 80 px, trained briefly on the digits, 360 digits        6.0e-7  1.3e-7   4.1e-4  8.5e-5   0
#   S at 384 px, random weights, undamped, 30 tiles              1.1e-5  1.4e-7    1.2e-2  1.4e-4   0
#   resnet50 at 32 px, random weights, undamped             1.9e-5  6.2e-6
#   tiny at 40 px, random weights, undamped, 30 tiles            4.5e-7  4.2e-8    9.3e-4  8.0e-5   0
# "Flips" are pictures whose first class changes, with the reference's preference for its own class. The bounds are two
# to ten times the worst figure; a flip is a tie up to the largest preference that a correct fp16 graph overturned.
PRECISIONS = (
    Precision(id="fp32", tolerance=Tolerance(max_error=1e-4, mean_error=2e-5, tie_margin=2e-5)),
    # A layer rounds what it reads to the 10 bits of float16's fraction, and adds up in float32 (NVIDIA, A100 paper).
    Precision(
        id="tf32",
        of_plans=True,
        least_capability="8.0",
        tolerance=Tolerance(max_error=4e-2, mean_error=2e-3, tie_margin=1e-2),
    ),
    Precision(
        id="fp16",
        transform="export.precision.fp16:to_fp16",
        tolerance=Tolerance(max_error=4e-2, mean_error=2e-3, tie_margin=1e-2),
    ),
    Precision(
        id="bf16",
        transform="export.precision.bf16:to_bf16",
        stand_in="export.precision.bf16:rounded_as_bf16",
        # tensorrt-rtx 1.7: "Cannot compile for target(s) sm75, because the model contains HW-specific datatypes: b16."
        least_capability="8.0",
        first_opset=22,  # of a convolution
        tolerance=Tolerance(max_error=2e-1, mean_error=1e-2, tie_margin=8e-2),
    ),
    Precision(
        id="int8",
        calibrated=True,
        tolerance=Tolerance(max_error=5e-1, mean_error=5e-2, tie_margin=2e-2, least_agreement=0.95, least_cosine=0.98),
    ),
    Precision(
        id="fp8",
        calibrated=True,
        # tensorrt-rtx 1.7: "Cannot compile for target(s) sm80, sm86, because …: fp8_e4m3."
        least_capability="8.9",
        first_opset=19,  # of the pairs
        tolerance=Tolerance(max_error=5e-1, mean_error=5e-2, tie_margin=2e-2, least_agreement=0.95, least_cosine=0.98),
    ),
)
# What a field or an option may hold. A type checker cannot read the rows, so for it an id is any text.
if TYPE_CHECKING:
    PrecisionId = str
    PlanPrecisionId = str
else:
    PrecisionId = Literal[tuple(row.id for row in PRECISIONS if not row.of_plans)]
    PlanPrecisionId = Literal[tuple(row.id for row in PRECISIONS)]

# The setting of a session, and the optimizers switched off, with which float8 runs. ONNX Runtime takes all pairs for
# pairs of integers, fuses them, and then refuses float8 (clip_quantizelinear.cc, QLinearConv). Without fusing, it
# computes between the pairs in float32.
NO_FUSED_PAIRS = "session.disable_quant_qdq"
NO_FUSED_CLIPS = ("ClipQuantRewrite", "ReluQuantRewrite")


def find_precision(id: str) -> Precision:
    """Look a precision up by its id.

    Raises:
        UnknownNameError: there is none; names the nearest.
    """
    return look_up({row.id: row for row in PRECISIONS}, id, kind="precision", hint="`zoo export --help` lists them.")
