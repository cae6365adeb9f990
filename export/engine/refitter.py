"""Owns the calls of TensorRT that put weights into an engine that is there; it knows no passport."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.engine.native import as_parsed, parser_errors, refused
from export.engine.tensorrt_api import TensorRT


def put_weights_in(tensorrt: TensorRT, engine: Any, graph: bytes | Path) -> None:
    """Replace the weights of a loaded engine by those of a graph with the same nodes. It waits for the GPU.

    Args:
        tensorrt: who loaded it.
        engine: its `ICudaEngine`, built refittable or stripped.
        graph: a serialised ONNX graph, or its file; its weights are found by their names.

    Raises:
        EngineBuildError: the engine has weights that the graph lacks, or of another shape; it is not to be used.
    """
    module: Any = tensorrt.module
    refitter = module.Refitter(engine, tensorrt.logger)
    parser = module.OnnxParserRefitter(refitter, tensorrt.logger)
    if not parser.refit_from_bytes(*as_parsed(graph)):
        raise refused(tensorrt, f"cannot put these weights into the plan: {parser_errors(tensorrt, parser)}")
    if missing := refitter.get_missing_weights():
        raise refused(tensorrt, f"found no weights for {', '.join(missing[:3])} of the plan.")
    if not refitter.refit_cuda_engine():
        raise refused(tensorrt, f"cannot put these weights into the plan: {tensorrt.log.errors()}")


def plan_of_engine(tensorrt: TensorRT, engine: Any) -> bytes:
    """Write a loaded engine as a plan with its weights inside; refittable again where this release can say so.

    Raises:
        EngineBuildError: TensorRT answered nothing.
    """
    flags = tensorrt.module.SerializationFlag
    config = engine.create_serialization_config()
    config.clear_flag(flags.EXCLUDE_WEIGHTS)
    if hasattr(flags, "INCLUDE_REFIT"):  # since 10.16; without it the plan keeps its new weights for good
        config.set_flag(flags.INCLUDE_REFIT)
    serialized = engine.serialize_with_config(config)
    if serialized is None:
        raise refused(tensorrt, f"could not write the plan: {tensorrt.log.errors()}")
    return bytes(serialized)
