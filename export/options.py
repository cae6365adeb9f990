"""Owns what `zoo export`, `zoo predict` and `zoo evaluate` can be told: ranges, defaults, help; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from export.backends import USUAL, BackendId, CheckedBackendId
from export.contract import OPSET, Form, InputForm, Opset
from export.engine.builders import (
    AUTO,
    Batches,
    BatchProfile,
    BuilderId,
    Compat,
    EngineSettings,
    OptimizationLevel,
    WeightsIn,
    capabilities_of,
)
from export.precision.rows import PlanPrecisionId, PrecisionId
from zoo.model.spec import ImageSize
from zoo.options import Arg, DeviceChoice, GroupBy, Opt
from zoo.rows import Count, CountOrNone, NotNegative, Row, Share, Some

Flip = Annotated[
    bool, Opt("Answer with the mean of the scores of each picture and of its mirror image, in twice the time.")
]
RequireSignature = Annotated[
    Path | None, Opt("Refuse what the owner of this key did not sign, or was changed since.", metavar="PUB.pem")
]
BackendChoice = Annotated[
    BackendId, Opt("What runs it; auto takes the usual one of its kind: PyTorch, ONNX Runtime or TensorRT.")
]
# How many classes are named where a picture has one.
TOP = 5


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Row):
    """What to export and how; `random_weights` and a skipped parity gate are recorded in the passport."""

    model: Annotated[str, Arg("MODEL")]
    out: Annotated[Path, Opt("A folder, or a path ending in .onnx.", flags=("-o", "--out"))] = Path()
    precision: Annotated[PrecisionId, Opt("Numbers in the .onnx; int8 is in ONNX Runtime's form.")] = "fp32"
    trt: Annotated[PlanPrecisionId | None, Opt("Build a TensorRT plan too, in this precision.", unless="refit")] = None
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
        bool,
        Opt(
            "Also write a page, and its JSON: accuracy, size and speed of fp32, fp16, int8 and fp8.",
            unless="random_weights",
        ),
    ] = False
    max_drop: Annotated[
        NotNegative | None,
        Opt("Points of accuracy that may be lost; more, and nothing is written, exit code 3.", needs="report"),
    ] = None
    refit: Annotated[
        Path | None,
        Opt(
            "Put the weights into this plan, built with --weights refittable, instead of building one; needs its GPU.",
            metavar="OLD.plan",
            needs="parity",
        ),
    ] = None
    profiles: Annotated[
        tuple[Batches, ...],
        Some(),
        Opt(
            "Batches the plan, or Triton, takes, and the one it is tuned for; repeatable, each with its own kernels.",
            flags=("--profile",),
            metavar="MIN OPT MAX",
            needs=("trt", "triton"),
        ),
    ] = ((1, 8, 32),)
    builder: Annotated[BuilderId, Opt("auto: tensorrt if it can build here.", needs="trt")] = AUTO
    targets: Annotated[
        tuple[str, ...],
        Opt("Compute capability to build for (tensorrt-rtx); repeatable.", ("--target",), "8.6", needs="trt"),
    ] = ()
    gpus: Annotated[
        tuple[str, ...],
        Opt(
            "The same by families of GPUs: rtx-turing, rtx-ampere, rtx-ada, rtx-blackwell.",
            ("--gpu",),
            "FAMILY,…",
            needs="trt",
        ),
    ] = ()
    workspace_mib: Annotated[
        Count | None,
        Opt(
            "Most memory a layer may use beside its tensors, MiB.  [default: the GPU's]", ("--workspace",), needs="trt"
        ),
    ] = None
    optimization_level: Annotated[
        OptimizationLevel | None, Opt("How long to look for fast kernels.  [default: TensorRT's, 3]", needs="trt")
    ] = None
    timing_cache: Annotated[
        Path | None,
        Opt(
            "Measurements that builds on one GPU lend each other; made if it is not there.", metavar="FILE", needs="trt"
        ),
    ] = None
    compat: Annotated[
        Compat | None,
        Opt(
            "Run on every GPU of the same compute capability, or on Ampere and later, at some cost in speed."
            "  [default: this model of GPU]",
            needs="trt",
        ),
    ] = None
    version_compatible: Annotated[
        bool, Opt("Let later releases of TensorRT load the plan, at some cost in speed.", needs="trt")
    ] = False
    weights: Annotated[
        WeightsIn,
        Opt(
            "refittable: --refit can replace them; stripped: the plan takes them from the .onnx beside it.", needs="trt"
        ),
    ] = "fixed"
    cache: Annotated[
        bool, Opt("Build the plan even if the same one was built before.", flags=("--no-cache",), needs="trt")
    ] = True
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
            needs=("parity", "report"),
        ),
    ] = None
    # Enough for every class of a small data set, few enough for a large network on a CPU: 64 of S at 384 px are
    # 64 · 8.4 = 540 GMACs, some ten seconds on two cores.
    num_pictures: Annotated[Count, Opt("Pictures to compare on.", needs="parity")] = 64
    backends: Annotated[
        tuple[CheckedBackendId, ...],
        Opt("Compare the .onnx in this back end too, by the same gate; repeatable.", ("--backend",), needs="parity"),
    ] = ()
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
    def engine(self) -> EngineSettings:
        """What the plan is built to be.

        Raises:
            UnknownNameError: there is no such family of GPUs.
        """
        return EngineSettings(
            profiles=tuple(BatchProfile(min=least, opt=best, max=most) for least, best, most in self.profiles),
            targets=tuple(dict.fromkeys((*self.targets, *capabilities_of(self.gpus)))),
            workspace_mib=self.workspace_mib,
            optimization_level=self.optimization_level,
            compat=self.compat,
            version_compatible=self.version_compatible,
            weights=self.weights,
            tf32=self.trt == "tf32",
        )

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
    backend: BackendChoice = USUAL
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
    pictures: Annotated[
        Literal["exact", "quick"],
        Opt("quick: compare with what `zoo serve --pictures quick` answers; the passport records it.", unless="flip"),
    ] = "exact"
    sign: Annotated[
        Path | None, Opt("Sign the passport with that record anew, with this Ed25519 key.", metavar="KEY.pem")
    ] = None
    backend: BackendChoice = USUAL
    device: DeviceChoice = "auto"
    require_signature: RequireSignature = None
