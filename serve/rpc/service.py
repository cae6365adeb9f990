"""Owns the protocol's calls over gRPC: each finds its model, calls one function, and says errors as gRPC does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from functools import cache
from types import MappingProxyType
from typing import Any

import grpc

from serve.core.failures import DeadlineError, ProtocolError, find_failure, free_calls
from serve.keys import Keyring, role_for
from serve.models.models import Models, Served
from serve.protocol.describe import index, model_config, model_metadata, server_metadata
from serve.protocol.infer import infer
from serve.rpc.convert import message_from, message_of, request_of
from serve.rpc.schema import HEALTH_PACKAGE, PACKAGE, health_class, message_class
from serve.tracing import Tracing
from zoo.errors import ZooError

logger = logging.getLogger(__name__)

SERVICE = f"{PACKAGE}.GRPCInferenceService"
HEALTH_SERVICE = f"{HEALTH_PACKAGE}.Health"
# gRPC's words for the statuses of `serve.core.failures`.
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
# How many requests of one stream are under way before the next one is read.
STREAM_DEPTH = 64

CRASHED = "The server made a mistake. Its log has the details; please report them."

# The stages of the call that the current task answers.
_timings_ms: ContextVar[Mapping[str, float]] = ContextVar("timings_ms", default=MappingProxyType({}))
# Whose key that call was made with.
_holder: ContextVar[bytes] = ContextVar("holder", default=b"")

Call = Callable[[Any, Any], Awaitable[Any]]


class InferenceCalls:
    """The calls of `inference.GRPCInferenceService`, one method each, named as they are there."""

    def __init__(self, models: Models) -> None:
        self.models = models

    async def ServerLive(self, request: Any, context: Any) -> Any:
        """Say that the process answers."""
        return message_from("ServerLiveResponse", {"live": True})

    async def ServerReady(self, request: Any, context: Any) -> Any:
        """Whether every model would take a picture now."""
        return message_from("ServerReadyResponse", {"ready": self.is_ready()})

    async def ModelReady(self, request: Any, context: Any) -> Any:
        """Whether a model would take a picture now."""
        ready = self._served(request).service.not_ready() is None
        return message_from("ModelReadyResponse", {"ready": ready})

    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        """The server's metadata."""
        return message_from("ServerMetadataResponse", server_metadata(self.models))

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        """A model's metadata."""
        served = self._served(request)
        return message_from("ModelMetadataResponse", model_metadata(served, self.models.versions(served.name)))

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        """A model's configuration, as Triton has it."""
        return message_from("ModelConfigResponse", {"config": model_config(self._served(request))})

    async def ModelStatistics(self, request: Any, context: Any) -> Any:
        """The statistics of a model, or of all."""
        asked = self._served(request) if request.name else None
        chosen = [
            served
            for served in self.models
            if asked is None or (served.name == asked.name and (not request.version or served is asked))
        ]
        return message_from("ModelStatisticsResponse", {"model_stats": [served.stats() for served in chosen]})

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """Answer tensors, or encoded pictures, with tensors."""
        began_s = time.monotonic()
        served = self.models.find(request.model_name, request.model_version)
        service = served.service
        left_s = context.time_remaining()
        deadline_s = began_s + min(service.limits.timeout_s, left_s if left_s is not None else float("inf"))
        with service.admit() as engine:
            asked = request_of(request)
            if asked.timeout_us:
                deadline_s = min(deadline_s, began_s + asked.timeout_us / 1e6)
            try:
                async with asyncio.timeout(max(0.0, deadline_s - time.monotonic())):
                    answer = await infer(
                        served,
                        engine,
                        asked,
                        self.models.regions,
                        began_s=began_s,
                        deadline_s=deadline_s,
                        holder=_holder.get(),
                    )
            except TimeoutError as error:
                raise DeadlineError(
                    "No answer within the request's time.", "Send fewer at once, or ask for longer."
                ) from error
            _timings_ms.set({f"{stage}_ms": took_ms for stage, took_ms in answer.timings_ms.items()})
            return message_of(answer)

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:
        """Every version of every model that is, or could be, at work."""
        return message_from("RepositoryIndexResponse", {"models": index(self.models, ready_only=request.ready)})

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        """Load a model's versions as its folder has them now."""
        if request.parameters:
            raise ProtocolError("A model is loaded as its folder has it.", "Leave the parameters out.")
        await self.models.control.load(request.model_name)
        return message_from("RepositoryModelLoadResponse", {})

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        """Take a model from work."""
        await self.models.control.unload(request.model_name)
        return message_from("RepositoryModelUnloadResponse", {})

    async def SystemSharedMemoryStatus(self, request: Any, context: Any) -> Any:
        """What is registered."""
        regions = {region["name"]: region for region in self.models.regions.status(request.name)}
        return message_from("SystemSharedMemoryStatusResponse", {"regions": regions})

    async def SystemSharedMemoryRegister(self, request: Any, context: Any) -> Any:
        """Open a client's memory under a name."""
        self.models.regions.register(request.name, request.key, request.offset, request.byte_size)
        return message_from("SystemSharedMemoryRegisterResponse", {})

    async def SystemSharedMemoryUnregister(self, request: Any, context: Any) -> Any:
        """Forget a region, or all."""
        self.models.regions.unregister(request.name)
        return message_from("SystemSharedMemoryUnregisterResponse", {})

    async def CudaSharedMemoryStatus(self, request: Any, context: Any) -> Any:
        """The regions of CUDA memory: none is taken."""
        return message_from("CudaSharedMemoryStatusResponse", {})

    async def CudaSharedMemoryUnregister(self, request: Any, context: Any) -> Any:
        """Forget all of none: clients ask for it at their end."""
        return message_from("CudaSharedMemoryUnregisterResponse", {})

    async def ModelStreamInfer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """Answer a stream of requests in their order; up to `STREAM_DEPTH` of them are under way at once."""
        answers: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue(STREAM_DEPTH)

        async def read() -> None:
            try:
                async for request in requests:
                    await answers.put(asyncio.ensure_future(self._answer_streamed(request, context)))
            finally:
                await answers.put(None)

        reader = asyncio.ensure_future(read())
        try:
            while (answer := await answers.get()) is not None:
                yield await answer
            await reader
        finally:
            reader.cancel()
            while not answers.empty():
                if left := answers.get_nowait():
                    left.cancel()

    async def _answer_streamed(self, request: Any, context: Any) -> Any:
        message = message_class("ModelStreamInferResponse")()
        try:
            message.infer_response.CopyFrom(await self.ModelInfer(request, context))
        except ZooError as error:
            message.error_message = str(error)
            message.infer_response.id = request.id
            free_calls(error)
        except Exception:
            logger.exception("ModelStreamInfer failed")
            message.error_message = CRASHED
        return message

    def is_ready(self) -> bool:
        """Whether every model would take a picture now."""
        return all(served.service.not_ready() is None for served in self.models)

    def _served(self, request: Any) -> Served:
        return self.models.find(request.name, request.version)


UNARY_CALLS = (
    *("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata"),
    *("ModelConfig", "ModelStatistics", "ModelInfer"),
    *("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"),
    *("SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister"),
    *("CudaSharedMemoryStatus", "CudaSharedMemoryUnregister"),
)


def handlers(models: Models, keys: Keyring, tracing: Tracing | None = None) -> tuple[Any, Any]:
    """The protocol's service and gRPC's health service, for `grpc.aio.Server.add_generic_rpc_handlers`."""
    calls = InferenceCalls(models)
    methods = {
        name: grpc.unary_unary_rpc_method_handler(
            _with_status(name, getattr(calls, name), models, keys, tracing),
            request_deserializer=message_class(f"{name}Request").FromString,
            response_serializer=message_class(f"{name}Response").SerializeToString,
        )
        for name in UNARY_CALLS
    }

    async def stream(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        await _admit("ModelStreamInfer", context, keys)
        async for answer in calls.ModelStreamInfer(requests, context):
            yield answer

    methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        stream,
        request_deserializer=message_class("ModelInferRequest").FromString,
        response_serializer=message_class("ModelStreamInferResponse").SerializeToString,
    )

    async def check(request: Any, context: Any) -> Any:
        status = "SERVING" if calls.is_ready() else "NOT_SERVING"
        return health_class("HealthCheckResponse")(status=status)

    health = grpc.unary_unary_rpc_method_handler(
        check,
        request_deserializer=health_class("HealthCheckRequest").FromString,
        response_serializer=health_class("HealthCheckResponse").SerializeToString,
    )
    return (
        grpc.method_handlers_generic_handler(SERVICE, methods),
        grpc.method_handlers_generic_handler(HEALTH_SERVICE, {"Check": health}),
    )


async def _admit(name: str, context: Any, keys: Keyring) -> None:
    """End the call here unless its metadata has a key that may make it."""
    if keys.is_open:
        return
    try:
        if role := role_for(name):
            metadata = {key.lower(): str(value) for key, value in context.invocation_metadata() or ()}
            _holder.set(keys.check(metadata, role, context.peer().rpartition(":")[0]))  # without its port
    except ZooError as error:
        await context.abort(CODES[find_failure(error).status], str(error))


def _with_status(name: str, call: Call, models: Models, keys: Keyring, tracing: Tracing | None) -> Call:
    """A call whose errors of ours are gRPC's statuses, and which is counted and traced beside the routes of HTTP."""

    counter = cache(lambda status: models.requests.labels(f"grpc {name}", str(status)))

    async def answer(request: Any, context: Any) -> Any:
        began_s, status = time.monotonic(), 200
        await _admit(name, context, keys)
        try:
            return await call(request, context)
        except ZooError as error:
            status = find_failure(error).status
            if status == 500:
                logger.error("%s", error.problem, exc_info=error.__cause__ or error)
            free_calls(error)
            await context.abort(CODES[status], str(error))
        except Exception:
            status = 500
            logger.exception("%s failed", name)
            await context.abort(CODES[status], CRASHED)
        finally:
            counter(status).inc()
            if tracing:
                tracing.record(
                    f"{SERVICE}/{name}",
                    {key: str(value) for key, value in context.invocation_metadata() or ()},
                    took_s=time.monotonic() - began_s,
                    attributes={"rpc.system": "grpc", "rpc.service": SERVICE, "rpc.method": name},
                    timings_ms=_timings_ms.get(),
                    failed=status >= 500,
                )

    return answer
