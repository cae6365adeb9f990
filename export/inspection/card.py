"""Owns what is known of one artifact, whatever its kind, as a row; it opens no runner and measures nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from onnx import TensorProto

from export.contract import GRAPH_KEY, OPSET, Contract, read_metadata
from export.engine.builders import BuildCard
from export.inspection.abilities import Ability, of_checkpoint, of_graph, of_plan
from export.inspection.commands import export_command, training_command
from export.interface import Tensor, input_of, outputs_of
from export.passport import (
    CheckpointCard,
    FileCard,
    Parities,
    Passport,
    QuickCard,
    check_exists,
    check_plan,
    passport_path,
    read_passport,
)
from export.signature import signature_path
from export.size_cost import recorded_accuracy
from zoo.errors import ArtifactError, RowError
from zoo.files import sha256_of
from zoo.machine import cuda_driver
from zoo.model.counts import parts
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS
from zoo.rows import Count, CountOrNone, Row, Text, Within
from zoo.weights.mistaken import ARTIFACT, EXPORTED_SUFFIXES
from zoo.weights.resolve import check_name, checkpoint_path, weights_file
from zoo.weights.table import find_weights, is_weights_id

Kind = Literal["checkpoint", "onnx", "plan"]
# Where the weights of a checkpoint are stored and computed with.
CHECKPOINT_PRECISION = "fp32"


@dataclass(frozen=True, kw_only=True)
class Port(Row):
    """An input or output: its shape begins with the batch, which is −1."""

    name: Text
    dtype: Text
    shape: tuple[Annotated[int, Within(-1)], ...]

    @classmethod
    def of(cls, tensor: Tensor) -> Port:
        """As a file describes it."""
        return cls(name=tensor.name, dtype=tensor.dtype, shape=(-1, *tensor.shape))


@dataclass(frozen=True, kw_only=True)
class Inspection(Row):
    """What `zoo inspect --json` prints.

    `stages` are `zoo.model.counts.Part`s at the artifact's own size and classes, empty where the network's row is not
    among those of the zoo. `accuracy` is what its checkpoint records, `licence` that of the published weights it is or
    began from. `passport` says whether the one beside it describes this very file; `parity` is that passport's, and
    `signature` what is known of its signature, None without one. `made_by` is a command; `rebuild` is one too, where a
    plan can run here only if it is built again.
    """

    artifact: Text
    kind: Kind
    file: FileCard
    contract: Contract
    stages: tuple[Mapping[str, Any], ...]
    num_params: CountOrNone | None
    macs: CountOrNone | None
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    opset: Count | None
    accuracy: str | None
    licence: str | None
    random_weights: bool
    checkpoint: CheckpointCard | None
    passport: Literal["describes it", "describes another file", "missing", "not for a checkpoint"]
    parity: Parities | None
    builder: BuildCard | None
    made_by: Text
    created: str | None
    opens_here: tuple[Ability, ...]
    rebuild: str | None
    signature: str | None = None
    quick: QuickCard | None = None


def inspect_artifact(artifact: str, *, signed_by: Path | None = None) -> Inspection:
    """Find out what a checkpoint, a model's id, an .onnx or a .plan is.

    Args:
        artifact: its path, or a model's id.
        signed_by: the public key that `export.signature.require_signature` has found its signature to be of.

    Raises:
        ArtifactError: missing, foreign, or a plan that is not the one its passport describes.
        CheckpointError, UnknownNameError: as `zoo.weights.resolve.load_model`.
    """
    check_name(artifact)
    path = Path(artifact)
    if path.suffix not in EXPORTED_SUFFIXES:
        return _of_checkpoint(artifact)
    check_exists(path)
    found = _of_plan(path) if path.suffix == ".plan" else _of_graph(path)
    signature = f"by the key of {signed_by}" if signed_by else "not checked"
    return replace(found, signature=signature if signature_path(path).is_file() else None)


def _of_checkpoint(artifact: str) -> Inspection:
    path = checkpoint_path(artifact, ARTIFACT)
    if path:
        from zoo.weights.checkpoint import read_card

        card = read_card(path)
    else:
        from zoo.weights.resolve import load_model

        _, card, _ = load_model(artifact)
    file = path or weights_file(artifact)
    assert file is not None  # it has just been read
    contract = Contract(
        model=card.variant.id, classes=card.classes, preprocessing=card.preprocessing, thresholds=card.thresholds
    )
    return Inspection(
        artifact=artifact,
        kind="checkpoint",
        file=FileCard.of(file, CHECKPOINT_PRECISION),
        contract=contract,
        **_counted(card.variant, contract),
        **_ports(contract),
        opset=None,
        accuracy=recorded_accuracy(card.provenance) or None,
        licence=_licence(card.provenance),
        random_weights=False,
        checkpoint=None,
        passport="not for a checkpoint",
        parity=None,
        builder=None,
        made_by=training_command(card),
        created=(card.provenance.get("environment") or {}).get("time"),
        opens_here=of_checkpoint(),
        rebuild=None,
    )


def _of_graph(path: Path) -> Inspection:
    from export.weights_apart import find_weights, read_graph

    graph = read_graph(path, weights=False)
    stored = {entry.key: entry.value for entry in graph.metadata_props}.get(GRAPH_KEY)
    contract, fields = read_metadata(stored, str(path))
    opset = next((each.version for each in graph.opset_import if not each.domain), OPSET)
    passport = read_passport(path) if passport_path(path).is_file() else None
    sha256 = sha256_of(path)
    own = passport if passport and passport.files.onnx.sha256 == sha256 else None
    typed = own.command if own else None
    precision = own.files.onnx.precision if own else "unknown"
    checkpoint = own.checkpoint if own else _card_in(fields)
    return _exported(
        path,
        "onnx",
        FileCard.of(path, precision, find_weights(path, graph)),
        contract,
        checkpoint,
        passport=own,
        state="describes it" if own else "describes another file" if passport else "missing",
        opset=opset,
        made_by=typed or export_command(contract, checkpoint, passport=own, opset=opset),
        opens_here=of_graph(bf16=any(weight.data_type == TensorProto.BFLOAT16 for weight in graph.graph.initializer)),
    )


def _card_in(fields: Mapping[str, Any]) -> CheckpointCard | None:
    """The checkpoint's card that a graph carries; None where it carries another one than ours."""
    try:
        return CheckpointCard.from_dict(fields)
    except RowError:
        return None


def _of_plan(path: Path) -> Inspection:
    passport = check_plan(path)
    card, built = passport.files.plan, passport.builder
    if card is None or built is None:
        raise ArtifactError(
            f"{passport_path(path).name} does not say which TensorRT built {path.name}.", "Export it again."
        )
    command = partial(export_command, passport.contract, passport.checkpoint, passport=passport)
    ability, helps = of_plan(built)
    return _exported(
        path,
        "plan",
        card,
        passport.contract,
        passport.checkpoint,
        passport=passport,
        state="describes it",
        opset=None,
        made_by=passport.command or command(),
        opens_here=(ability,),
        rebuild=command(targets=_here()) if helps else None,
    )


def _here() -> tuple[str, ...] | None:
    """The compute capability of the GPU here; None where there is none."""
    driver = cuda_driver()
    return (".".join(map(str, driver.gpus[0].compute_capability)),) if driver else None


def _exported(
    path: Path,
    kind: Kind,
    file: FileCard,
    contract: Contract,
    checkpoint: CheckpointCard | None,
    *,
    passport: Passport | None,
    state: Any,
    opset: int | None,
    made_by: str,
    opens_here: tuple[Ability, ...],
    rebuild: str | None = None,
) -> Inspection:
    """What an .onnx and a .plan have alike."""
    provenance = checkpoint.provenance if checkpoint else {}
    variant = next((row for row in VARIANTS if row.id == contract.model), None)
    return Inspection(
        artifact=str(path),
        kind=kind,
        file=file,
        contract=contract,
        **_counted(variant, contract),
        **_ports(contract),
        opset=opset,
        accuracy=recorded_accuracy(provenance) or None,
        licence=_licence(provenance),
        random_weights=passport.random_weights if passport else False,
        checkpoint=checkpoint,
        passport=state,
        parity=passport.parity if passport else None,
        quick=passport.quick if passport else None,
        builder=passport.builder if passport and kind == "plan" else None,
        made_by=made_by,
        created=passport.created if passport else None,
        opens_here=opens_here,
        rebuild=rebuild,
    )


def _counted(variant: Variant | None, contract: Contract) -> dict[str, Any]:
    """The row stage by stage, at the contract's size and number of classes."""
    if variant is None:
        return {"stages": (), "num_params": None, "macs": None}
    size, num_classes = contract.preprocessing.image_size, len(contract.classes)
    row = variant.with_channels(contract.preprocessing.channels)
    stages = tuple(parts(row, image_size=size, num_classes=num_classes))
    return {
        "stages": tuple(asdict(part) for part in stages),
        "num_params": sum(part.num_params for part in stages),
        "macs": sum(part.macs for part in stages),
    }


def _ports(contract: Contract) -> dict[str, Any]:
    outputs = tuple(map(Port.of, outputs_of(contract)))
    return {"inputs": (Port.of(input_of(contract)),), "outputs": outputs}


def _licence(provenance: Mapping[str, Any]) -> str | None:
    """The licence of published weights, or of those that training began from."""
    if told := provenance.get("licence"):
        return str(told)
    began = str(provenance.get("started_from") or "")
    return find_weights(began).licence if is_weights_id(began) else None
