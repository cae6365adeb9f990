"""Owns a model's folder in a Triton model repository: whether a new version fits there, and how it gets in.

    DIR/s/config.pbtxt
    DIR/s/labels.txt
    DIR/s/1/model.onnx      and model.json, its passport; of more than 2 GB its weights, under the name that is in it
    DIR/s/2/model.onnx

Versions are only ever added, each by one rename, so that a server that polls the folder sees it whole or not at all.
"""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from export.contract import Contract
from export.engine.build import choose_builder
from export.engine.builders import BatchProfile, BuildCard
from export.options import ExportOptions
from export.passport import passport_path
from export.signature import signature_path
from export.triton.config import LABELS, MODEL_FILES, Served, labels_text, signature, tuning
from export.triton.kserve import inference_service
from export.weights_apart import find_weights
from zoo.errors import MissingCapabilityError, ZooError
from zoo.files import check_folder, new_folders, write_text

CONFIG = "config.pbtxt"
NAMES = r"[A-Za-z0-9._-]{1,128}"  # no path can be made of it


@dataclass(frozen=True)
class Entry:
    """A model of a repository, as an export is about to add a version to it."""

    repository: Path
    name: str
    contract: Contract
    served: Served
    profile: BatchProfile

    @property
    def folder(self) -> Path:
        """The model's own folder."""
        return self.repository / self.name

    @property
    def signature(self) -> str:
        """What every version of it must be."""
        return signature(self.name, self.contract, self.served, self.profile.max)


def planned_entry(options: ExportOptions, name: str, contract: Contract) -> Entry | None:
    """What an export will add to the repository that it names; None where it names none.

    Raises:
        ZooError: Triton could not serve it, or what is there already is something else. Said before long work.
    """
    if options.triton is None:
        return None
    if not re.fullmatch(NAMES, name) or name.startswith("."):
        raise ZooError(
            f"Triton takes no model called {name!r}: letters, digits, '.', '_' and '-' only.",
            "Name it with -o: `zoo export MODEL -o NAME.onnx`.",
        )
    if options.refit:
        raise ZooError(
            "--triton adds what an export builds, not a plan that --refit changes.",
            "Build it with --trt, or copy the refitted plan into the repository as the model's next version.",
        )
    profiles = options.engine.profiles
    if len(profiles) > 1:
        raise ZooError(
            "Triton runs a plan's first --profile only, and here are several.", "Give one that takes all batches."
        )
    entry = Entry(options.triton, name, contract, "plan" if options.trt else "onnx", profiles[0])
    if options.trt:
        _check_plan(options, profiles[0])
    check_folder(entry.folder, option="--triton")
    if options.kserve:
        if options.kserve.is_dir():
            raise ZooError(f"Cannot write {options.kserve}: it is a folder.", "Name a file: --kserve service.yaml.")
        check_folder(options.kserve.parent, option="--kserve")
    _check_alike(entry)
    return entry


def _check_plan(options: ExportOptions, profile: BatchProfile) -> None:
    """Check that Triton loads such a plan, as far as can be told before it is built."""
    if profile.min > 1:
        raise ZooError(
            f"Triton sends single pictures too, and --profile {profile.min} … takes none.",
            f"--profile 1 {profile.opt} {profile.max}",
        )
    if options.weights == "stripped":
        raise ZooError("Triton does not put weights into a plan that lacks them.", "Leave --weights stripped out.")
    with suppress(MissingCapabilityError):  # said when the plan is built
        builder = choose_builder(options.builder, targets=options.targets)
        if builder.ahead_of_time:
            raise ZooError(
                f"Triton's TensorRT backend does not load plans of {builder.name}.",
                "Build with --builder tensorrt on the GPU that will serve it, or leave --trt out: it runs an .onnx.",
            )


def _check_alike(entry: Entry) -> None:
    """Check that what is in the model's folder already is of the same form and classes."""
    config, labels = entry.folder / CONFIG, entry.folder / LABELS
    if config.is_file() and not config.read_text(encoding="utf-8").startswith(entry.signature):
        raise ZooError(
            f"{config} describes another model: other inputs, outputs, backend or batches than this export's.",
            "Versions of a model must be alike. Export under another name with -o NAME.onnx, or move that folder away.",
        )
    if labels.is_file() and labels.read_text(encoding="utf-8") != labels_text(entry.contract.classes):
        raise ZooError(
            f"{labels} has other classes than this export's.",
            "Versions of a model must be alike. Export under another name with -o NAME.onnx, or move that folder away.",
        )


def add_version(entry: Entry, artifact: Path) -> Path:
    """Copy an artifact and its passport into the next version's folder, with config and labels where there are none.

    Returns:
        The version's folder.

    Raises:
        ZooError: the folder cannot be written to.
    """
    try:
        with new_folders(entry.folder), TemporaryDirectory(prefix=".new-", dir=entry.folder) as made:
            model = Path(made, "version", MODEL_FILES[entry.served])
            model.parent.mkdir()
            shutil.copyfile(artifact, model)
            if entry.served == "onnx" and (apart := find_weights(artifact)):
                shutil.copyfile(artifact.with_name(apart.name), model.with_name(apart.name))
            shutil.copyfile(passport_path(artifact), passport_path(model))
            if signature_path(artifact).is_file():
                shutil.copyfile(signature_path(artifact), signature_path(model))
            _publish_beside(entry, Path(made))
            return _publish(model.parent, entry.folder)
    except OSError as error:
        raise ZooError(
            f"Cannot write to {entry.folder}: {error.strerror}. {artifact} was written all the same.",
            "Choose another --triton.",
        ) from error


def _publish_beside(entry: Entry, made: Path) -> None:
    """Put labels and config into a model's folder that has none; a disk that is full has said so before."""
    texts = {
        LABELS: labels_text(entry.contract.classes),
        CONFIG: f"{entry.signature}\n{tuning(entry.contract, entry.served, entry.profile)}",
    }
    missing = [name for name in texts if not (entry.folder / name).is_file()]
    for name in missing:
        (made / name).write_bytes(texts[name].encode(errors="backslashreplace"))
    for name in missing:
        (made / name).replace(entry.folder / name)


def _publish(made: Path, folder: Path) -> Path:
    """Rename a version's folder to the next free number; another export may take one meanwhile."""
    while True:
        taken = [int(path.name) for path in folder.iterdir() if path.name.isascii() and path.name.isdigit()]
        version = folder / str(max(taken, default=0) + 1)
        try:
            return made.rename(version)
        except OSError:
            if not version.exists():
                raise


def write_service(path: Path, entry: Entry, built: BuildCard | None) -> Path:
    """Write the InferenceService of a repository, whole or not at all; return its path."""
    write_text(path, inference_service(entry.name, entry.repository.resolve().name, entry.served, built))
    return path
