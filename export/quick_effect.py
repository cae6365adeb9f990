"""Owns what quick pictures do to an artifact's answers: pictures prepared both ways, and the passport's record.

`zoo serve --pictures quick` prepares JPEGs by `zoo.data.quick`, whose pixels differ a little from those of training.
How much that matters depends on the network and on its pictures, so it is measured on them; a server wants to see the
record.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from export.contract import Contract
from export.evaluate import match_classes, rank_of
from export.interface import as_logits
from export.options import EvaluateOptions
from export.passport import QuickCard, check_exists, passport_path, read_passport
from export.runners.runner import Runner, are_finite, not_finite
from export.signature import load_signing_key, sign_passport, signature_path
from zoo.data.decode import MAX_PIXELS
from zoo.data.pictures import Pictures
from zoo.data.preprocess import prepare
from zoo.data.quick import QuickPreparer
from zoo.errors import ArtifactError, BrokenPictureError, DataError
from zoo.files import sha256_of, write_json
from zoo.label_scores import mean_average_precision, sigmoid
from zoo.weights.mistaken import EXPORTED_SUFFIXES

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@dataclass
class _Both:
    """Logits (N, K) to the same pictures prepared either way, batch by batch, and which classes they are of."""

    exact: list[NDArray[np.float32]] = field(default_factory=list)
    quick: list[NDArray[np.float32]] = field(default_factory=list)
    chunks: list[Pictures] = field(default_factory=list)
    num_quick: int = 0


def check_recordable(artifact: str, sign: Path | None) -> Ed25519PrivateKey | None:
    """Make sure, before anything is measured, that what is found can be written; return the key to sign it with.

    Raises:
        ArtifactError: no .onnx and no .plan, a passport that is missing or of another file, or one that is signed, so
            that another word in it would make the signature wrong. ZooError: as `load_signing_key`.
    """
    path = Path(artifact)
    if path.suffix not in EXPORTED_SUFFIXES:
        raise ArtifactError(
            f"{artifact} has no passport to record the effect of quick pictures in.",
            "Export it, and evaluate the .onnx: `zoo export MODEL`.",
        )
    check_exists(path)
    files = read_passport(path).files
    card = files.plan if path.suffix == ".plan" else files.onnx
    if card is None or card.sha256 != sha256_of(path):
        raise ArtifactError(f"{passport_path(path)} does not describe {path.name}.", "Export the model again.")
    if sign is None and signature_path(path).is_file():
        raise ArtifactError(
            f"{passport_path(path)} is signed, and a record in it would make the signature wrong.",
            "Sign it anew: --sign KEY.pem.",
        )
    return load_signing_key(sign) if sign else None


def measure_quick(
    runner: Runner,
    pictures: Pictures,
    *,
    batch_size: int = EvaluateOptions.batch_size,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_broken: Callable[[str], None] = lambda problem: None,
) -> QuickCard:
    """Answer labelled pictures prepared exactly and quickly, leaving out the broken ones.

    Args: as `export.evaluate.evaluate`.

    Raises:
        DataError: as `evaluate`; or none of the pictures is one that is prepared quickly.
        ArtifactError: logits that are not finite.
    """
    contract = runner.contract
    index_of = match_classes(pictures, contract.classes)
    if pictures.multi_label and contract.thresholds is None:
        raise DataError(
            f"{runner.artifact} answers one class a picture, and those of {pictures.name} may have several.",
            "Measure it on pictures of one class each.",
        )
    step = min(batch_size, runner.max_batch_size or batch_size)
    both, preparer = _Both(), QuickPreparer()
    for start in range(0, len(pictures), step):
        chunk = pictures.at(np.arange(start, min(start + step, len(pictures))))
        _answer(runner, chunk, preparer, both, on_broken)
        on_progress(start + len(chunk), len(pictures))
    if not both.num_quick:
        raise DataError(
            f"None of the {len(pictures)} pictures of {pictures.name} is a JPEG that is prepared quickly.",
            "Name JPEGs as the server will get them: --data FOLDER.",
        )
    exact, quick = np.concatenate(both.exact), np.concatenate(both.quick)
    if unusable := int((~(are_finite(exact) & are_finite(quick))).sum()):
        raise not_finite(runner.artifact, unusable, len(exact))
    accuracy = _accuracy_of(both.chunks, index_of, contract)
    return QuickCard(
        artifact=Path(runner.artifact).name,
        pictures=pictures.name,
        n=len(exact),
        num_quick=both.num_quick,
        metric="top1" if contract.thresholds is None else "map",
        exact=accuracy(exact),
        quick=accuracy(quick),
        agreement=float((_said(exact, contract) == _said(quick, contract)).all(axis=-1).mean()),
    )


def record_quick(artifact: Path, card: QuickCard, key: Ed25519PrivateKey | None) -> Path:
    """Write what was measured into the artifact's passport, and sign that anew; return its path.

    Nothing else of the passport changes, also what a later version may have written there.
    """
    path = passport_path(artifact)
    fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, fields | {"quick": card.to_dict()})
    if key:
        sign_passport(path, key)
    return path


def _answer(
    runner: Runner, chunk: Pictures, preparer: QuickPreparer, both: _Both, on_broken: Callable[[str], None]
) -> None:
    """Answer one batch both ways."""
    preprocessing = runner.contract.preprocessing
    exact: list[NDArray[np.uint8]] = []
    quick: list[NDArray[np.uint8]] = []
    kept = []
    with chunk.reading(range(len(chunk))) as reads:
        for index, read in enumerate(reads):
            try:
                stored = read()
                exact.append(prepare(chunk.decode(index, stored, channels=preprocessing.channels), preprocessing))
            except BrokenPictureError as error:
                on_broken(error.problem)
                continue
            made = None
            if isinstance(stored, bytes):
                made = preparer.prepare(stored, preprocessing, max_pixels=MAX_PIXELS)
            both.num_quick += made is not None
            quick.append(exact[-1] if made is None else made)
            kept.append(index)
    if kept:
        both.exact.append(as_logits(runner.infer(np.stack(exact)), runner.contract).copy())
        both.quick.append(as_logits(runner.infer(np.stack(quick)), runner.contract).copy())
        both.chunks.append(chunk.at(np.array(kept)))


def _said(logits: NDArray[np.float32], contract: Contract) -> NDArray[Any]:
    """What is answered: the first class (N, 1), or of several labels whether each reaches its threshold (N, K)."""
    if contract.thresholds is None:
        first: NDArray[np.int64] = logits.argmax(axis=1)[:, None]
        return first
    said: NDArray[np.bool_] = sigmoid(logits) >= np.array(contract.thresholds)
    return said


def _accuracy_of(
    chunks: list[Pictures], index_of: NDArray[np.int64], contract: Contract
) -> Callable[[NDArray[np.float32]], float]:
    """Top-1 of logits (N, K), or their mean average precision where the artifact answers several labels."""
    if contract.thresholds is None:
        labels = np.concatenate([index_of[chunk.labels] for chunk in chunks])
        return lambda logits: float((rank_of(logits, labels) < 1).mean())
    targets = np.zeros((sum(map(len, chunks)), len(contract.classes)), np.bool_)
    targets[:, index_of] = np.concatenate([chunk.all_targets() for chunk in chunks])
    return lambda logits: float(mean_average_precision(sigmoid(logits), targets))
