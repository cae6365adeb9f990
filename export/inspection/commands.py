"""Owns how an artifact is made again: the command that its card or passport amounts to; it runs none."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from export.contract import OPSET, Contract, Form
from export.engine.builders import CLASSIC, BuildCard, EngineSettings
from export.passport import CheckpointCard
from zoo.weights.checkpoint import Checkpoint
from zoo.weights.resolve import CHECKPOINT_SUFFIX


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
    precision: str | None = None,
    built: BuildCard | None = None,
    targets: Sequence[str] | None = None,
    opset: int = OPSET,
    random_weights: bool = False,
) -> str:
    """What exports such an artifact, its plan included where it was `built`.

    Args:
        contract: of the artifact.
        checkpoint: the weights it was made from, if known.
        precision: of the plan.
        built: who built the plan, and for what.
        targets: compute capabilities to build for instead.
        opset: of the graph.
        random_weights: it has no others.
    """
    usual, form = Form(), contract.form
    parts = [*_option("image-size", contract.preprocessing.image_size)]
    parts += _option("input", form.input if form.input != usual.input else None)
    parts += ["--softmax"] if form.output != usual.output else []
    parts += [*_option("topk", form.topk), *_option("opset", opset if opset != OPSET else None)]
    if built:
        parts += [*_option("trt", precision), *_option("builder", built.name), *_engine_options(built.built_as)]
        chosen = built.targets if targets is None else targets
        parts += [] if built.name == CLASSIC.id else [part for each in chosen for part in _option("target", each)]
    parts += ["--random-weights"] if random_weights else []
    return _command("export", _model_of(contract, checkpoint), *parts)


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
    if checkpoint and not checkpoint.source.endswith(CHECKPOINT_SUFFIX) and provenance.get("weights"):
        return str(provenance["weights"])
    return contract.model


def _option(name: str, value: object) -> tuple[str, ...]:
    return () if value is None else (f"--{name}", str(value))


def _command(name: str, *parts: str) -> str:
    return " ".join(["zoo", name, *map(shlex.quote, parts)])
