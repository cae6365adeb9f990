"""Owns an inference by the protocol: tensors in, checked against the contract, through the queue, tensors out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from export.contract import TOP_CLASSES, TOP_SCORES
from export.interface import Tensor
from serve.core.failures import ProtocolError
from serve.core.service import Service, together
from serve.core.slot import Engine
from serve.core.waiting import Answer
from serve.models.models import Served
from serve.protocol.datatypes import BYTES, DATATYPES
from serve.protocol.messages import AskedOutput, GivenTensor, InferAnswer, InferRequest, OutputTensor
from serve.regions import Regions


class Turn(TypedDict):
    """What a request's pictures have in common in the queue, as `Service.classify` takes it."""

    deadline_s: float
    priority: int
    holder: bytes


async def infer(
    served: Served,
    engine: Engine,
    request: InferRequest,
    regions: Regions,
    *,
    began_s: float,
    deadline_s: float,
    holder: bytes = b"",
) -> InferAnswer:
    """Answer a request with the engine that it holds, and count it in the model's statistics.

    A batch's pictures are queued one by one: they share the queue, and may share an inference, with everybody else's.

    Raises:
        ProtocolError: a tensor that the model does not take, an output that it has not, too large a batch.
        BrokenPictureError, QueueFullError, DrainingError, DeadlineError, EngineError: as `Service.classify`.
    """
    try:
        wanted = _wanted(request, engine)
        given = _given(request, engine)
        if given.region:
            given = given.with_raw(regions.read(given.region.name, given.region.offset, given.region.length))
        turn: Turn = {"deadline_s": deadline_s, "priority": request.priority, "holder": holder}
        if given.datatype == BYTES:
            answers, decode_ms = await _classify(served.service, engine, given.elements(), turn)
        else:
            decode_ms = 0.0
            answers = await _submit(served.service, engine, given.array(), turn)
        computed_s = time.monotonic()
        logits = np.stack([answer.logits for answer in answers]) if len(answers) > 1 else answers[0].logits[None]
        outputs = tuple([_output(asked, logits, engine) for asked in wanted])
        for output in outputs:
            if region := output.asked.region:
                regions.write(region.name, region.offset, region.length, output.raw())
    except BaseException:
        served.statistics.observe_failure(began_s)
        raise
    now_s = time.monotonic()
    taken_ms = {
        "decode": decode_ms,
        "queue": max([answer.queue_ms for answer in answers]),
        "compute": max([answer.compute_ms for answer in answers]),
        "encode": (now_s - computed_s) * 1000.0,
        "total": (now_s - began_s) * 1000.0,
    }
    served.statistics.observe_success(len([answer for answer in answers if not answer.was_kept]), taken_ms)
    for answer in answers:
        served.service.metrics.observe_prediction(
            decode_ms=decode_ms,
            queue_ms=answer.queue_ms,
            total_ms=taken_ms["total"],
            encode_ms=taken_ms["encode"],
            was_kept=answer.was_kept,
        )
    return InferAnswer(
        model=served.name,
        version=served.version,
        id=request.id,
        outputs=outputs,
        timings_ms=taken_ms,
        batch_size=max([answer.batch_size for answer in answers]),
    )


def _given(request: InferRequest, engine: Engine) -> GivenTensor:
    """The request's one input; encoded pictures may come in its place, a BYTES tensor of the same name."""
    taken = engine.taken
    if len(request.inputs) != 1 or request.inputs[0].name != taken.name:
        names = ", ".join(repr(given.name[:40]) for given in request.inputs) or "none"
        raise ProtocolError(f"The model has one input, {taken.name}, and the request has {names}.", _expects(taken))
    given = request.inputs[0]
    if given.datatype == BYTES:
        if len(given.shape) not in (1, 2) or given.shape[1:] not in ((), (1,)):
            raise ProtocolError(
                f"Encoded pictures have the shape [N] or [N, 1], not {list(given.shape)}.", _expects(taken)
            )
    elif given.datatype != DATATYPES[taken.dtype]:
        raise ProtocolError(
            f"The input {taken.name} is {DATATYPES[taken.dtype]}, not {given.datatype[:40]}.", _expects(taken)
        )
    elif given.shape == taken.shape:
        given = replace(given, shape=(1, *given.shape))
    elif given.shape[1:] != taken.shape:
        raise ProtocolError(f"The input {taken.name} cannot have the shape {list(given.shape)}.", _expects(taken))
    most = engine.batcher.max_batch_size
    if not given.shape or not 1 <= given.shape[0] <= most:
        raise ProtocolError(
            f"A request has 1 to {most} pictures, not {given.shape[0] if given.shape else 0}.",
            "Send several requests, or start the server with a larger --max-batch-size.",
        )
    return given


def _expects(taken: Tensor) -> str:
    return f"It takes {taken.name}: {DATATYPES[taken.dtype]} {[-1, *taken.shape]}, or BYTES [-1] of encoded pictures."


async def _classify(
    service: Service, engine: Engine, bodies: Sequence[bytes], turn: Turn
) -> tuple[list[Answer], float]:
    found = await together(service.classify(engine, body, **turn) for body in bodies)
    return [answer for answer, _ in found], max(decode_ms for _, decode_ms in found)


async def _submit(service: Service, engine: Engine, tensor: NDArray[Any], turn: Turn) -> list[Answer]:
    if tensor.dtype.kind == "f" and not _are_finite(tensor):
        raise ProtocolError("The input has values that are not finite.", "Look at how it was normalised.")
    return await service.infer(engine, tensor, **turn)


def _are_finite(tensor: NDArray[Any]) -> bool:
    """Whether every value is. One that is not makes a sum that is not, and a sum takes a quarter of the time."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(tensor.sum()) or np.isfinite(tensor).all())


def _wanted(request: InferRequest, engine: Engine) -> list[AskedOutput]:
    """The outputs to answer; all of them where none is asked for."""
    names = list(engine.dtypes)
    if not request.outputs:
        return [AskedOutput(name=name, binary=request.binary_output) for name in names]
    for asked in request.outputs:
        if asked.name not in names:
            raise ProtocolError(f"The model has no output {asked.name[:80]!r}.", f"It has {', '.join(names)}.")
        if asked.classification and asked.name != names[0]:
            raise ProtocolError(f"{asked.name} has no classes to name.", f"Ask for the classification of {names[0]}.")
    return [
        replace(asked, binary=request.binary_output) if asked.binary is None else asked for asked in request.outputs
    ]


def _output(asked: AskedOutput, logits: NDArray[np.float32], engine: Engine) -> OutputTensor:
    """One output of a batch; `logits` (N, K) are the first output, whose order the others repeat."""
    contract = engine.contract
    if asked.classification:
        k = min(asked.classification, logits.shape[1])
        elements = [element for row in logits for element in _classification(row, k, contract.classes)]
        return OutputTensor(name=asked.name, datatype=BYTES, shape=(len(logits), k), data=elements, asked=asked)
    data: NDArray[Any] = logits
    if asked.name in (TOP_SCORES, TOP_CLASSES):
        order = np.argsort(-logits, axis=1, kind="stable")[:, : contract.form.topk or 0]
        data = np.take_along_axis(logits, order, axis=1) if asked.name == TOP_SCORES else order.astype(np.int64)
    return OutputTensor(
        name=asked.name, datatype=DATATYPES[engine.dtypes[asked.name]], shape=data.shape, data=data, asked=asked
    )


def _classification(row: NDArray[np.float32], k: int, classes: Sequence[str]) -> list[bytes]:
    """The `k` highest outputs as Triton's classification extension writes them: value:index:label."""
    best = np.argsort(-row, kind="stable")[:k]
    return [f"{row[index]:f}:{index}:{' '.join(classes[index].splitlines())}".encode() for index in best]
