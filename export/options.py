"""Owns what `zoo export`, `zoo predict` and `zoo evaluate` can be told: ranges, defaults, help; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from export.contract import OPSET, Form, InputForm, Opset
from export.engine.builders import AUTO, Batches, BuilderId
from export.precision.rows import PrecisionId
from zoo.model.spec import ImageSize
from zoo.options import Arg, DeviceChoice, GroupBy, Opt
from zoo.rows import Count, CountOrNone, NotNegative, Row, Share, Some

Flip = Annotated[
    bool, Opt("Answer with the mean of the scores of each picture and of its mirror image, in twice the time.")
]
RequireSignature = Annotated[
    Path | None, Opt("Refuse what the owner of this key did not sign, or was changed since.", metavar="PUB.pem")
]
# How many classes are named where a picture has one.
TOP = 5


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Row):
    """What to export and how; `random_weights` and a skipped parity gate are recorded in the passport."""

    model: Annotated[str, Arg("MODEL")]
    out: Annotated[Path, Opt("A folder, or a path ending in .onnx.", flags=("-o", "--out"))] = Path()
    precision: Annotated[PrecisionId, Opt("Numbers in the .onnx; int8 is in ONNX Runtime's form.")] = "fp32"
    trt: Annotated[PrecisionId | None, Opt("Build a TensorRT plan too, in this precision.")] = None
    calib: Annotated[
        str | None,
        Opt("Pictures to calibrate int8 and fp8 on, as --data; by default 512 of those it was trained on."),
    ] = None
    keep: Annotated[
        tuple[str, ...],
        Opt("Leave this block (stages.1.block.0) or part of one (….depthwise) out of 8 bits; repeatable."),
    ] = ()
    agreement: Annotated[
        Share, Opt("Share of answers that 8 bits have to keep: blocks stay out of them until it is met.")
    ] = 0.97
    report: Annotated[
        bool, Opt("Also write a page, and its JSON: accuracy, size and speed of fp32, fp16, int8 and fp8.")
    ] = False
    max_drop: Annotated[
        NotNegative | None,
        Opt("Points of accuracy that may be lost; more, and nothing is written, exit code 3.", needs="report"),
    ] = None
    profile: Annotated[
        Batches,
        Opt(
            "Batches the plan, or Triton, takes, and the one it is tuned for.",
            metavar="MIN OPT MAX",
            needs=("trt", "triton"),
        ),
    ] = (1, 8, 32)
    builder: Annotated[BuilderId, Opt("auto: tensorrt if it can build here.", needs="trt")] = AUTO
    targets: Annotated[
        tuple[str, ...],
        Opt("Compute capability to build for (tensorrt-rtx); repeatable.", ("--target",), "8.6", needs="trt"),
    ] = ()
    image_size: Annotated[
        ImageSize | None, Opt("Side of the input, px; by default the checkpoint's own. It says what another one costs.")
    ] = None
    input: Annotated[
        InputForm, Opt("uint8: pictures, normalised inside; float: planes that the client has normalised.")
    ] = "uint8"
    softmax: Annotated[bool, Opt("Answer probabilities, of several labels their sigmoid, instead of logits.")] = False
    topk: Annotated[
        Count | None, Opt("Answer the so many highest scores and their classes too, as outputs of their own.")
    ] = None
    opset: Annotated[Opset, Opt("Version of ONNX's operators.")] = OPSET
    data: Annotated[
        str | None,
        Opt(
            "Pictures to compare on: digits, a folder or a file of labels; by default those it was trained beside.",
            needs="parity",
        ),
    ] = None
    # Enough for every class of a small data set, few enough for a large network on a CPU: 64 of S at 384 px are
    # 64 · 8.4 = 540 GMACs, some ten seconds on two cores.
    num_pictures: Annotated[Count, Opt("Pictures to compare on.", needs="parity")] = 64
    parity: Annotated[bool, Opt("Skip the comparison; the passport says so.", flags=("--no-parity",))] = True
    triton: Annotated[
        Path | None,
        Opt("Add it as a model's next version to this model repository of Triton's too.", metavar="DIR"),
    ] = None
    kserve: Annotated[
        Path | None,
        Opt("Write the InferenceService that runs the repository on KServe.", metavar="FILE", needs="triton"),
    ] = None
    sign: Annotated[
        Path | None, Opt("Sign the passport, which holds the files' hashes, with this Ed25519 key.", metavar="KEY.pem")
    ] = None
    random_weights: Annotated[bool, Opt("Untrained, for latency work only; the passport says so.")] = False

    @property
    def form(self) -> Form:
        """What the graph does of the work around the network."""
        return Form(input=self.input, output="probabilities" if self.softmax else "logits", topk=self.topk)


@dataclass(frozen=True, kw_only=True)
class PredictOptions(Row):
    """What to classify, with which artifact; `pictures` as `zoo.data.named.find_pictures` takes them."""

    artifact: Annotated[str, Arg("ARTIFACT")]
    pictures: Annotated[tuple[str, ...], Some(), Arg("PICTURE...")]
    top: Annotated[
        Count | None, Opt(f"Classes to name  [default: {TOP}; of several labels all that reach their thresholds]")
    ] = None
    calibrated: Annotated[
        bool, Opt("Scores that say how often such answers are right, by the temperature that `zoo train` fitted.")
    ] = False
    flip: Flip = False
    device: DeviceChoice = "auto"
    require_signature: RequireSignature = None


@dataclass(frozen=True, kw_only=True)
class InspectOptions(Row):
    """What to look into, and in which language to write a program that uses it."""

    artifact: Annotated[str, Arg("ARTIFACT")]
    snippet: Annotated[
        Literal["python", "cpp"] | None,
        Opt("Print a program that classifies with an .onnx or a .plan and has nothing of this project in it."),
    ] = None
    require_signature: RequireSignature = None


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Row):
    """Which artifact to measure, on which pictures."""

    artifact: Annotated[str, Arg("ARTIFACT")]
    data: Annotated[
        str | None,
        Opt(
            "digits, a folder of labelled pictures, a file of labels; by default what a checkpoint was trained beside."
        ),
    ] = None
    seed: Annotated[CountOrNone | None, Opt("Split of a folder that has none, as `zoo train --seed` made it.")] = None
    group_by: GroupBy = None
    batch_size: Annotated[Count, Opt("Pictures at once, at most.")] = 32
    flip: Flip = False
    device: DeviceChoice = "auto"
    require_signature: RequireSignature = None
