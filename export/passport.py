"""Owns the passport: the JSON beside the artifacts that says what they are, and the check that they still are it.

`s.json` is the passport of `s.onnx` and `s.plan`: the row `Passport` as JSON. Later versions only add fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from export.contract import Contract
from export.engine.builders import BuildCard
from export.precision.rows import Tolerance
from export.precision.scores import QuantizationCard
from export.weights_apart import WeightsFile
from zoo import __version__
from zoo.errors import ArtifactError, RowError
from zoo.files import sha256_of, write_json
from zoo.results import Sha256
from zoo.rows import Count, CountOrNone, NotNegative, Positive, Row, Share, Text, field_types
from zoo.weights.mistaken import ARTIFACT, EXPORTED_SUFFIXES
from zoo.weights.resolve import checkpoint_path

FORMAT = "zoo-passport-1"
RANDOM_WEIGHTS = "random weights"  # the source of a network that nobody trained


@dataclass(frozen=True, kw_only=True)
class WeightsCard(Row):
    """The file with the weights of an .onnx that one file cannot hold; the .onnx has its hash too."""

    name: Text
    sha256: Sha256
    bytes: Count


@dataclass(frozen=True, kw_only=True)
class FileCard(Row):
    """One artifact: its name beside the passport, its hash, size, numeric precision, and `weights` that are apart."""

    name: Text
    sha256: Sha256
    bytes: CountOrNone
    precision: Text
    weights: WeightsCard | None = None

    @classmethod
    def of(cls, path: Path, precision: str, weights: WeightsFile | None = None) -> FileCard:
        """Describe a file that exists, and the one with its weights where these are apart."""
        card = WeightsCard(**vars(weights)) if weights else None
        size = path.stat().st_size
        return cls(name=path.name, sha256=sha256_of(path), bytes=size, precision=precision, weights=card)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; of a single file they are those of the first version."""
        fields = super().to_dict()
        if self.weights is None:
            del fields["weights"]
        return fields


@dataclass(frozen=True, kw_only=True)
class FileCards(Row):
    """The artifacts of one passport; `plan` is None without one."""

    onnx: FileCard
    plan: FileCard | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointCard(Row):
    """The weights an artifact was made from; `provenance` is the checkpoint's own."""

    source: Text
    sha256: str | None
    provenance: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Parity(Row):
    """What one comparison found.

    Errors are of logits; `relative_…` are shares of `scale`, the largest absolute reference logit.
    `top1_agreement` is the plain share of pictures with the same first class, or, where several labels are `compared`,
    with the same ones above their thresholds; `ties` counts those of the others on which the reference itself hardly
    prefers one class, or is as near to the thresholds (see `Tolerance`); `failures` names every bound that broke.
    """

    written_too = ("passed",)

    reference: str
    candidate: str
    pictures: str
    n: Count
    scale: Positive
    max_abs_error: NotNegative
    mean_abs_error: NotNegative
    relative_max_error: NotNegative
    relative_mean_error: NotNegative
    top1_agreement: Share
    ties: CountOrNone
    tolerance: Tolerance
    failures: tuple[str, ...]
    compared: Literal["class", "labels"] = "class"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; of one class a picture they are those of the first version."""
        fields = super().to_dict()
        if self.compared == "class":
            del fields["compared"]
        return fields

    @property
    def passed(self) -> bool:
        """Every bound held."""
        return not self.failures

    def summary(self) -> str:
        """One line for people."""
        ties = f" ({self.ties} of the others are ties)" if self.ties else ""
        return (
            f"max error {self.max_abs_error:.1e}, mean {self.mean_abs_error:.1e} of logits up to {self.scale:.3g}; "
            f"same {self.compared} on {self.top1_agreement:.1%} of {self.n}{ties}"
        )


@dataclass(frozen=True, kw_only=True)
class BackendParity(Row):
    """One comparison of the .onnx in a back end of `export.backends`, by its id."""

    backend: Text
    parity: Parity


@dataclass(frozen=True, kw_only=True)
class Parities(Row):
    """The comparisons of one export: its .onnx, the graph the plan was built from, and the plan itself, on a GPU.

    The graph has the plan's precision and is run by ONNX Runtime. `backends` are comparisons of the .onnx in
    others. `notes` says why one is None, by its name.
    """

    onnx: Parity | None = None
    graph: Parity | None = None
    plan: Parity | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    backends: tuple[BackendParity, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; without other back ends they are those of the first version."""
        fields = super().to_dict()
        if not self.backends:
            del fields["backends"]
        return fields


@dataclass(frozen=True, kw_only=True)
class Quantizations(Row):
    """How the artifacts got their 8 bits; None where one has more."""

    onnx: QuantizationCard | None = None
    plan: QuantizationCard | None = None


@dataclass(frozen=True, kw_only=True)
class QuickCard(Row):
    """What pictures prepared quickly, as `zoo serve --pictures quick` does, change in the answers of `artifact`.

    On the same n labelled pictures: `exact` and `quick` are the accuracy either way (top-1, or of several labels the
    mean average precision), `agreement` the share of pictures with the same answer. `num_quick` of them are JPEGs; the
    others are prepared exactly either way.
    """

    artifact: Text
    pictures: Text
    n: Count
    num_quick: Count
    metric: Literal["top1", "map"]
    exact: Share
    quick: Share
    agreement: Share

    def summary(self) -> str:
        """One line for people."""
        metric = "top-1" if self.metric == "top1" else "mAP"
        return (
            f"{metric} {self.quick:.2%} instead of {self.exact:.2%}, the same answer to {self.agreement:.2%} "
            f"of {self.n} pictures of {self.pictures}"
        )


@dataclass(frozen=True, kw_only=True)
class Passport(Row):
    """What is known of the artifacts of one export; `environment` is `zoo.machine.environment()`.

    `command` is what was typed to make them, None where Python was called. `quick` is what `zoo evaluate --pictures
    quick` adds; None where nobody has measured it.
    """

    written_too = ("format", "zoo_version", "created")

    contract: Contract
    files: FileCards
    builder: BuildCard | None
    parity: Parities
    checkpoint: CheckpointCard
    random_weights: bool
    environment: Mapping[str, Any]
    quantization: Quantizations = field(default_factory=Quantizations)
    quick: QuickCard | None = None
    command: Text | None = None

    format = FORMAT
    zoo_version = __version__

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; where nothing is quantized or measured they are those of the first version."""
        fields = super().to_dict()
        if self.quantization == Quantizations():
            del fields["quantization"]
        for name in ("quick", "command"):
            if fields[name] is None:
                del fields[name]
        return fields

    @property
    def created(self) -> str:
        """When, by the clock of the machine that made it."""
        return str(self.environment["time"])


def passport_path(artifact: Path) -> Path:
    """Where the passport of an artifact is: s.onnx and s.plan → s.json."""
    return artifact.with_suffix(".json")


def check_exists(artifact: Path) -> None:
    """Refuse an artifact that is not there.

    Raises:
        ArtifactError: it is no file; says what writes one.
    """
    if not artifact.is_file():
        trt = " --trt fp16" if artifact.suffix == ".plan" else ""
        raise ArtifactError(f"There is no file {artifact}.", f"`zoo export MODEL{trt}` writes one.")


def write_passport(path: Path, passport: Passport) -> None:
    """Write a passport, whole or not at all."""
    write_json(path, passport.to_dict())


def read_passport(artifact: Path) -> Passport:
    """Read the passport beside an artifact.

    Raises:
        ArtifactError: there is none, or it is damaged.
    """
    path = passport_path(artifact)
    if not path.is_file():
        raise ArtifactError(
            f"{artifact} has no passport: {path.name} is not beside it.",
            "Copy it along with the artifact; `zoo export MODEL` writes both.",
        )
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields["format"] != FORMAT:
            raise ArtifactError(
                f"{path} has the format {fields['format']!r}; this version reads {FORMAT!r}.",
                "Export the model again with this version.",
            )
        return Passport.from_dict(_known(Passport, fields))
    except (KeyError, TypeError, ValueError, OSError) as error:
        said = error.problem if isinstance(error, RowError) else repr(error)
        raise ArtifactError(f"{path} is not a readable passport: {said}", "Export the model again.") from error


def _known(kind: Any, value: Any) -> Any:
    """Leave out the fields that a later version added; but a contract with more in it than we know is refused."""
    if get_origin(kind) is tuple and isinstance(value, list):
        return [_known(get_args(kind)[0], member) for member in value]
    rows = [row for row in (kind, *get_args(kind)) if isinstance(row, type) and issubclass(row, Row)]
    if not rows or rows[0] is Contract or not isinstance(value, Mapping):
        return value
    kinds = field_types(rows[0])
    return {name: _known(kinds[name], member) for name, member in value.items() if name in kinds}


def provenance_of(artifact: str) -> Mapping[str, Any]:
    """What an artifact's passport, or a checkpoint's or model's own card, says of its training; {} where nothing does.

    Raises:
        ArtifactError, CheckpointError, UnknownNameError: what is there cannot be read, or the name is mistaken.
    """
    path = Path(artifact)
    if path.suffix in EXPORTED_SUFFIXES:
        return read_passport(path).checkpoint.provenance if passport_path(path).is_file() else {}
    from zoo.weights.checkpoint import read_card

    checkpoint = checkpoint_path(artifact, ARTIFACT)
    return read_card(checkpoint).provenance if checkpoint else {}


def check_plan(plan: Path) -> Passport:
    """Read a plan's passport and make sure the plan is the file it describes.

    TensorRT runs what is in a plan. So a plan that was changed, or that another export left here, is refused before
    TensorRT sees a byte of it.

    Raises:
        ArtifactError: no plan, no passport, or they do not belong together.
    """
    check_exists(plan)
    passport = read_passport(plan)
    card = passport.files.plan
    if card is None:
        raise ArtifactError(
            f"{passport_path(plan).name} knows of no plan: {plan.name} is from another export.",
            f"`zoo export {passport.contract.model} --trt fp16` builds one that belongs to it.",
        )
    if sha256_of(plan) != card.sha256:
        raise ArtifactError(
            f"{plan.name} is not the file its passport describes (sha256 {card.sha256[:12]}… expected).",
            "A plan is executable content: fetch it again, or build it again with `zoo export`.",
        )
    return passport
