"""Owns the rows of back ends: what each opens, where it computes, in what, and what installs it; it opens nothing.

They import nothing heavy, so that the command line and the docs can read them; opening is `export.runners.open`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from export.precision.rows import Precision, find_precision
from zoo.errors import MissingCapabilityError, ZooError, look_up
from zoo.machine import Device
from zoo.rows import Row, Text
from zoo.wording import joined

Kind = Literal["checkpoint", ".onnx", ".plan"]
USUAL = "auto"  # the first row that opens the artifact

# Of lite0's ImageNet weights on 252 crops of photographs (benchmarks/backends.py, AMD EPYC with AVX-512 BF16), OpenVINO
# 2026.4's bf16 has errors of up to 5.8e-2 of the largest logit, 4.2e-3 in the mean, beside PyTorch in fp32. It changes
# 14 first classes, which PyTorch itself prefers by no more than 1.9e-2. All is within what bf16 may cost anyway.
BF16 = find_precision("bf16")


@dataclass(frozen=True, kw_only=True)
class Backend(Row):
    """One way to run an artifact of one kind.

    `device` is where it computes at all. `package` is the import name of what has to be installed besides zoo, and
    `install` the command that does it; "" where zoo brings it. `computes` is its own precision where that is not the
    artifact's, and how far that may be from the reference.
    """

    id: Text
    opens: Kind
    device: Device = "auto"
    package: str = ""
    install: str = ""
    computes: Precision | None = None
    purpose: Text

    def precision_of(self, artifact: str) -> str:
        """What an artifact of a precision is computed in: "bf16", or "int8, bf16" where only float32 is rounded."""
        if self.computes is None:
            return artifact
        return self.computes.id if artifact == "fp32" else f"{artifact}, {self.computes.id}"


BACKENDS = (
    Backend(id="torch", opens="checkpoint", purpose="PyTorch as it is: the reference of the gate"),
    Backend(
        id="torch-compile",
        opens="checkpoint",
        purpose="the same through `torch.compile`: what PyTorch alone can do on this device",
    ),
    Backend(
        id="torch-aot",
        opens="checkpoint",
        purpose="the same through AOTInductor, compiled ahead of time, without Python in the calls",
    ),
    Backend(id="onnxruntime", opens=".onnx", purpose="ONNX Runtime, on the processor or through CUDA"),
    Backend(
        id="onnxruntime-cuda-graph",
        opens=".onnx",
        device="cuda",
        purpose="the same on a GPU, a CUDA graph for each batch size: one launch for the whole network",
    ),
    Backend(
        id="openvino",
        opens=".onnx",
        device="cpu",
        package="openvino",
        install="pip install 'zoo[openvino]'",
        purpose="OpenVINO on the processor, in the precision of the file",
    ),
    Backend(
        id="openvino-bf16",
        opens=".onnx",
        device="cpu",
        package="openvino",
        install="pip install 'zoo[openvino]'",
        computes=BF16,
        purpose="the same, float32 rounded to bfloat16, on processors that compute in it",
    ),
    Backend(id="tensorrt", opens=".plan", device="cuda", purpose="TensorRT or TensorRT-RTX, whichever built the plan"),
)
# The .onnx of an export goes through the first of these anyway; those of a processor can be asked for besides.
ALSO_CHECKED = tuple(row.id for row in BACKENDS if row.opens == ".onnx" and row.device == "cpu")
# What a field or an option may hold. A type checker cannot read the rows, so for it an id is any text.
if TYPE_CHECKING:
    BackendId = str
    CheckedBackendId = str
else:
    BackendId = Literal[(USUAL, *(row.id for row in BACKENDS))]
    CheckedBackendId = Literal[ALSO_CHECKED]


def find_backend(id: str) -> Backend:
    """Look a back end up by its id.

    Raises:
        UnknownNameError: there is none; names the nearest.
    """
    return look_up({row.id: row for row in BACKENDS}, id, kind="back end", hint="`zoo predict --help` lists them.")


def choose_backend(artifact: str, asked: str = USUAL, *, device: Device = "auto") -> Backend:
    """The back end that opens an artifact: what was asked for, or the usual one of its kind.

    Raises:
        ZooError: it opens another kind, or computes elsewhere than on `device`.
        MissingCapabilityError: it is not installed.
        UnknownNameError: as `find_backend`.
    """
    fitting = _that_open(artifact)
    chosen = fitting[0] if asked == USUAL else find_backend(asked)
    if chosen not in fitting:
        raise ZooError(
            f"--backend {chosen.id} opens {_named(chosen.opens)}, and {artifact} is {_named(kind_of(artifact))}.",
            f"Those that open it: {joined(row.id for row in fitting)}.",
        )
    if asked != USUAL and "auto" not in (device, chosen.device) and device != chosen.device:
        other = {"cpu": "the processor", "cuda": "a GPU"}[chosen.device]
        raise ZooError(f"--backend {chosen.id} computes on {other}, and --device is {device}.", "Leave --device out.")
    if chosen.package and find_spec(chosen.package) is None:
        raise MissingCapabilityError(f"--backend {chosen.id}: {chosen.package} is not installed.", chosen.install)
    return chosen


def pair_with_backends(artifacts: Sequence[str], asked: Sequence[str]) -> list[tuple[str, str]]:
    """Each artifact with each back end asked for that opens it; with `USUAL` where none is asked for.

    Raises:
        ZooError: a back end that opens none of the artifacts, or an artifact that none of them opens.
    """
    chosen = list(dict.fromkeys(asked)) or [USUAL]
    pairs = [
        (artifact, id)
        for artifact in artifacts
        for id in chosen
        if id == USUAL or find_backend(id) in _that_open(artifact)
    ]
    for id in chosen:
        if id not in {of_pair for _, of_pair in pairs}:
            choose_backend(artifacts[0], id)
    for artifact in artifacts:
        if artifact not in {of_pair for of_pair, _ in pairs}:
            choose_backend(artifact, chosen[0])
    return pairs


def kind_of(artifact: str) -> Kind:
    """What an artifact is by its suffix; a path or name without one of ours is a checkpoint."""
    suffix = Path(artifact).suffix
    return ".onnx" if suffix == ".onnx" else ".plan" if suffix == ".plan" else "checkpoint"


def _that_open(artifact: str) -> list[Backend]:
    return [row for row in BACKENDS if row.opens == kind_of(artifact)]


def _named(kind: Kind) -> str:
    return {"checkpoint": "a checkpoint", ".onnx": "an .onnx", ".plan": "a .plan"}[kind]
