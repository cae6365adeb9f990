"""Owns the passport: the JSON beside the artifacts that says what they are, and the check that they still are it.

`s.json` is the passport of `s.onnx` and `s.plan`:

    {"format": "zoo-passport-1", "zoo_version": "0.1.0", "created": "2026-01-31T12:00:00+00:00",
     "contract": {"model", "classes", "preprocessing"},
     "files": {"onnx": {"name", "sha256", "bytes", "precision"}, "plan": {…} | null},
     "builder": {"name", "version", "targets", "profile", "gpu", "build_s", "warnings"} | null,
     "parity": {"onnx": {…} | null, "graph": {…} | null, "plan": {…} | null, "notes": {"plan": "not run: …"}},
     "checkpoint": {"source", "sha256", "provenance"}, "random_weights": false, "environment": {…}}

`parity.graph` is the comparison of the graph the plan was built from, in the plan's precision, run by ONNX Runtime;
`parity.plan` that of the plan itself, on a GPU. Where one is null, `notes` says why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.contract import Contract
from zoo import __version__
from zoo.errors import ArtifactError
from zoo.files import sha256_of, write_json

FORMAT = "zoo-passport-1"
SUFFIX = ".json"


@dataclass(frozen=True, kw_only=True)
class FileCard:
    """One artifact: its name beside the passport, its sha256 (hexadecimal), size, and numeric precision."""

    name: str
    sha256: str
    bytes: int
    precision: str

    @classmethod
    def of(cls, path: Path, precision: str) -> FileCard:
        """Describe a file that exists."""
        return cls(name=path.name, sha256=sha256_of(path), bytes=path.stat().st_size, precision=precision)


@dataclass(frozen=True, kw_only=True)
class Passport:
    """The fields of a passport; see this module's docstring for their JSON."""

    contract: Contract
    onnx: FileCard
    plan: FileCard | None
    builder: Mapping[str, Any] | None
    parity: Mapping[str, Any]
    checkpoint: Mapping[str, Any]
    random_weights: bool
    environment: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "format": FORMAT,
            "zoo_version": __version__,
            "created": self.environment["time"],
            "contract": self.contract.to_dict(),
            "files": {"onnx": asdict(self.onnx), "plan": self.plan and asdict(self.plan)},
            "builder": self.builder and dict(self.builder),
            "parity": dict(self.parity),
            "checkpoint": dict(self.checkpoint),
            "random_weights": self.random_weights,
            "environment": dict(self.environment),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Passport:
        """Read what `to_dict` wrote."""
        files = fields["files"]
        return cls(
            contract=Contract.from_dict(fields["contract"]),
            onnx=FileCard(**files["onnx"]),
            plan=FileCard(**files["plan"]) if files["plan"] else None,
            builder=fields["builder"],
            parity=fields["parity"],
            checkpoint=fields["checkpoint"],
            random_weights=fields["random_weights"],
            environment=fields["environment"],
        )


def passport_path(artifact: Path) -> Path:
    """Where the passport of an artifact is: s.onnx and s.plan → s.json."""
    return artifact.with_suffix(SUFFIX)


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
        return Passport.from_dict(fields)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ArtifactError(f"{path} is not a readable passport: {error!r}.", "Export the model again.") from error


def check_plan(plan: Path, *, trust: bool = False) -> Passport:
    """Read a plan's passport and make sure the plan is the file it describes.

    A plan is executable content: TensorRT runs what is in it. So a plan that was changed, or that another export
    left here, is refused before TensorRT sees a byte of it.

    Args:
        plan: the file.
        trust: use it although its hash differs; for a file whose origin you know better than its passport does.

    Raises:
        ArtifactError: no plan, no passport, or they do not belong together.
    """
    if not plan.is_file():
        raise ArtifactError(f"There is no file {plan}.", "`zoo export MODEL --trt fp16` writes one.")
    passport = read_passport(plan)
    if passport.plan is None:
        raise ArtifactError(
            f"{passport_path(plan).name} knows of no plan: {plan.name} is from another export.",
            f"`zoo export {passport.contract.model} --trt fp16` builds one that belongs to it.",
        )
    if not trust and sha256_of(plan) != passport.plan.sha256:
        raise ArtifactError(
            f"{plan.name} is not the file its passport describes (sha256 {passport.plan.sha256[:12]}… expected).",
            "A plan is executable content: fetch it again, or build it again with `zoo export`.",
        )
    return passport
