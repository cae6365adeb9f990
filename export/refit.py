"""Owns which weights go into which plan: `--refit`, and plans that are kept without weights; it builds none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from onnx import ModelProto

from export.contract import Contract
from export.engine.build import Engine
from export.engine.builders import BuildCard, find_builder
from export.engine.refitter import plan_of_engine, put_weights_in
from export.engine.tensorrt_api import load_tensorrt
from export.passport import Passport, check_plan
from export.precision.rows import Precision, find_precision
from export.weights_apart import read_graph
from zoo.errors import ArtifactError, MissingCapabilityError, ZooError
from zoo.files import sha256_of
from zoo.machine import cuda_driver


@dataclass(frozen=True)
class OldPlan:
    """A plan that new weights go into: its file, and from its passport what it is."""

    path: Path
    contract: Contract
    precision: Precision
    built: BuildCard


def check_weights_apart(precision: Precision, flag: str) -> None:
    """Refuse to take a plan and its weights apart in a precision that the .onnx and its rule do not say whole.

    Raises:
        ZooError: the precision is calibrated: ranges are part of its kernels, and other weights have others.
    """
    if precision.calibrated:
        raise ZooError(
            f"{flag} is for fp32, tf32, fp16 and bf16: in a plan of {precision.id} the calibrated ranges are part of "
            "the kernels, and do not change with the weights.",
            "Build the plan again for every checkpoint.",
        )


def open_old_plan(path: Path) -> OldPlan:
    """Check, before long work, that weights can be put into a plan here.

    Raises:
        ArtifactError: it has no passport of its own, or was not built for it.
        MissingCapabilityError: this machine has no GPU, or not this TensorRT.
        ZooError: its precision is calibrated.
    """
    passport = check_plan(path)
    built, card = passport.builder, passport.files.plan
    if built is None or card is None or built.built_as.weights != "refittable":
        raise ArtifactError(
            f"{path} was not built to take other weights.",
            f"Build it again once: `zoo export {passport.contract.model} --trt fp16 --weights refittable`.",
        )
    precision = find_precision(card.precision)
    check_weights_apart(precision, "--refit")
    if cuda_driver() is None:
        raise MissingCapabilityError(
            "Weights are put into a plan on its GPU, and this machine has none.",
            "Run the same command on the machine that will run the plan.",
        )
    load_tensorrt(find_builder(built.name))
    return OldPlan(path, passport.contract, precision, built)


def check_fits(old: OldPlan, contract: Contract) -> None:
    """Refuse weights of another network, size, form or number of classes than the plan's.

    Raises:
        ZooError: says how they differ.
    """
    ours, theirs = _form(contract), _form(old.contract)
    other = [f"{name} {theirs[name]} instead of {ours[name]}" for name in ours if ours[name] != theirs[name]]
    if other:
        raise ZooError(
            f"{old.path} is for another network: {', '.join(other)}.",
            "Leave --refit out: `zoo export MODEL --trt fp16` builds a plan of its own.",
        )


def _form(contract: Contract) -> dict[str, object]:
    return {
        "model": contract.model,
        "size": contract.preprocessing.image_size,
        "planes": contract.preprocessing.channels,
        "classes": len(contract.classes),
        "form": contract.form,
    }


def refit_plan(old: OldPlan, graph: bytes | Path) -> Engine:
    """Put a graph's weights into a plan's kernels. The old file stays as it is; whoever calls compares the answers.

    Args:
        old: as `open_old_plan` found it.
        graph: a serialised ONNX graph in the plan's precision, or its file.

    Raises:
        ArtifactError: this TensorRT, or this GPU, is not the plan's.
        EngineBuildError: the weights do not fit.
    """
    tensorrt = load_tensorrt(find_builder(old.built.name))
    module: Any = tensorrt.module
    tensorrt.log.clear()
    start = perf_counter()
    runtime = module.Runtime(tensorrt.logger)
    if old.built.built_as.version_compatible:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(old.path.read_bytes())
    if engine is None:
        raise ArtifactError(
            f"{old.path} was built by {old.built.name} {old.built.version}; here {tensorrt.builder.id} "
            f"{tensorrt.version} refuses it: {tensorrt.log.errors()}",
            "A plan is for one release of TensorRT and one model of GPU: use those, or build it again here.",
        )
    put_weights_in(tensorrt, engine, graph)
    plan = plan_of_engine(tensorrt, engine)
    again = hasattr(module.SerializationFlag, "INCLUDE_REFIT")
    settings = replace(old.built.built_as, weights="refittable" if again else "fixed")
    card = replace(
        old.built,
        settings=settings,
        build_s=round(perf_counter() - start, 2),
        warnings=tensorrt.log.warnings(),
        from_cache=False,
        refitted_from=sha256_of(old.path),
    )
    return Engine(plan, card)


def weights_beside(plan: Path, passport: Passport) -> ModelProto:
    """The graph whose weights a stripped plan lacks, in the plan's precision, of the .onnx beside it.

    Raises:
        ArtifactError: the .onnx is missing, is not the one in the passport, or has fewer bits than the plan.
    """
    card, path = passport.files.onnx, plan.with_suffix(".onnx")
    assert passport.files.plan
    precision = passport.files.plan.precision
    if not path.is_file() or sha256_of(path) != card.sha256:
        raise ArtifactError(
            f"{plan} was kept without weights, and {path.name}, which has them, is not beside it.",
            "Copy the .onnx of the same export along with the plan and its passport.",
        )
    if card.precision not in ("fp32", precision):
        raise ArtifactError(
            f"{plan} of {precision} takes its weights from an .onnx in fp32, and {path.name} is in {card.precision}.",
            "Export both again, the .onnx in fp32.",
        )
    graph = read_graph(path)
    if card.precision != precision:
        graph = find_precision(precision).apply(graph)
    return graph
