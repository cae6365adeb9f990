"""Owns what is known of an artifact besides its speed: the SHA-256 of its file, precision, threads; it opens none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from export.backends import Backend
from export.passport import read_passport
from serve.bench.measure.opened import OpenArtifact
from zoo.errors import ArtifactError
from zoo.files import sha256_of
from zoo.results import Subject
from zoo.weights.resolve import weights_file

UNKNOWN_PRECISION = "unknown precision"
# A checkpoint's weights are stored as float32, and PyTorch computes in it.
CHECKPOINT_PRECISION = "fp32"


def describe_artifact(artifact: str, backend: Backend, opened: OpenArtifact, batch_sizes: Sequence[int]) -> Subject:
    """An artifact as the subject of a result; `artifact` is the path or id that was opened."""
    is_exported = Path(artifact).suffix in (".onnx", ".plan")
    file = Path(artifact) if is_exported else weights_file(artifact)
    sha256 = sha256_of(file) if file and file.is_file() else None
    own = exported_precision(Path(artifact), sha256) if is_exported else CHECKPOINT_PRECISION
    return Subject(
        name=opened.name,
        batch_sizes=tuple(batch_sizes),
        precision=backend.precision_of(own),
        threads=opened.runner.threads,
        sha256=sha256,
    )


def exported_precision(artifact: Path, sha256: str | None) -> str:
    """The precision of an .onnx or a .plan by the passport beside it, if that speaks of this very file."""
    try:
        passport = read_passport(artifact)
    except ArtifactError:  # a graph runs without a passport too
        return UNKNOWN_PRECISION
    card = passport.files.onnx if artifact.suffix == ".onnx" else passport.files.plan
    return card.precision if card and card.sha256 == sha256 else UNKNOWN_PRECISION
