"""Owns how an artifact is made again: the command that its card or passport amounts to; it runs none."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.contract import OPSET, Contract, Form
from export.engine.builders import CLASSIC, EngineSettings
from export.options import ExportOptions
from export.passport import RANDOM_WEIGHTS, CheckpointCard, Passport
from zoo.weights.checkpoint import Checkpoint
from zoo.weights.resolve import CHECKPOINT_NAME, CHECKPOINT_SUFFIX


def training_command(card: Checkpoint) -> str:
    """What made a checkpoint: training, or bringing weights in; options that its recipe resolved are in the recipe."""
    provenance = card.provenance
    if weights := provenance.get("weights"):
        return f"zoo pull {weights}"
    if origin := provenance.get("origin"):
        return f"zoo import {card.variant.id} {shlex.quote(str(provenance.get('file')))} --from {origin}"
    told = {
        "data": provenance.get("data"),
        "recipe": card.recipe.get("name"),
        "seed": provenance.get("seed"),
        "group-by": provenance.get("group_by"),
    }
    model = provenance.get("started_from") or card.variant.id
    return _command("train", str(model), *(part for name, value in told.items() for part in _option(name, value)))


def export_command(
    contract: Contract,
    checkpoint: CheckpointCard | None,
    *,
    passport: Passport | None = None,
    targets: Sequence[str] | None = None,
    opset: int = OPSET,
) -> str:
    """What exports such an artifact, its plan included where it was `built`.

    Args:
        contract: of the artifact.
        checkpoint: the weights it was made from, if known.
        passport: its own, if it has one.
        targets: compute capabilities to build for instead.
        opset: of the graph.
    """
    usual, form = Form(), contract.form
    parts = [*_option("image-size", contract.preprocessing.image_size)]
    parts += _option("input", form.input if form.input != usual.input else None)
    parts += ["--softmax"] if form.output != usual.output else []
    parts += [*_option("topk", form.topk), *_option("opset", opset if opset != OPSET else None)]
    if passport:
        parts += [] if passport.files.onnx.precision == "fp32" else ["--precision", passport.files.onnx.precision]
        parts += _quantization_options(passport)
    if passport and passport.files.plan and (built := passport.builder):
        parts += ["--trt", passport.files.plan.precision, "--builder", built.name, *_engine_options(built.built_as)]
        chosen = built.targets if targets is None else targets
        parts += [] if built.name == CLASSIC.id else [part for each in chosen for part in _option("target", each)]
    parts += ["--random-weights"] if checkpoint and checkpoint.source == RANDOM_WEIGHTS else []
    return _command("export", _model_of(contract, checkpoint), *parts)


def _quantization_options(passport: Passport) -> list[str]:
    """What chose the blocks in float; and the pictures to calibrate on, where they are not the checkpoint's own."""
    card = passport.quantization.onnx or passport.quantization.plan
    if card is None:
        return []
    choice, own = card.choice, Path(str(passport.checkpoint.provenance.get("data") or "")).name
    other = not passport.random_weights and card.pictures != own
    parts = [*_option("calib", card.pictures if other else None)]
    if choice.target is None:
        return [*parts, *(part for path in choice.kept for part in ("--keep", path))]
    return [*parts, *_option("agreement", choice.target if choice.target != ExportOptions.agreement else None)]


def _engine_options(settings: EngineSettings) -> list[str]:
    """What asks for these settings, except for the targets."""
    usual, parts = EngineSettings(), []
    for profile in settings.profiles if settings.profiles != usual.profiles else ():
        parts += ["--profile", *map(str, (profile.min, profile.opt, profile.max))]
    parts += [*_option("workspace", settings.workspace_mib)]
    parts += [*_option("optimization-level", settings.optimization_level), *_option("compat", settings.compat)]
    parts += ["--version-compatible"] if settings.version_compatible else []
    parts += [*_option("weights", settings.weights if settings.weights != usual.weights else None)]
    return parts


def _model_of(contract: Contract, checkpoint: CheckpointCard | None) -> str:
    """What MODEL was: the id of published weights, or of a network, of which the run's checkpoint is taken."""
    provenance: Mapping[str, Any] = checkpoint.provenance if checkpoint else {}
    if checkpoint and checkpoint.source.endswith(CHECKPOINT_SUFFIX):
        # Of a run folder the name of the file says nothing: it is that of every run.
        return contract.model if checkpoint.source == CHECKPOINT_NAME else checkpoint.source
    return str(provenance.get("weights") or contract.model)


def _option(name: str, value: object) -> tuple[str, ...]:
    return () if value is None else (f"--{name}", str(value))


def _command(name: str, *parts: str) -> str:
    return " ".join(["zoo", name, *map(shlex.quote, parts)])
