"""Owns the life of the gRPC server: its address, its limits, its end; what it answers is `serve.rpc.service`'s."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from serve.keys import EVERYBODY, Keyring
from serve.models.models import Models
from serve.rpc.service import handlers
from serve.tracing import Tracing

# What a request may have beside its tensors: names, shapes, parameters.
AROUND_BYTES = 65_536


@asynccontextmanager
async def grpc_server(
    models: Models,
    address: str,
    *,
    max_body_bytes: int,
    drain_s: float,
    keys: Keyring = EVERYBODY,
    credentials: Any = None,
    tracing: Tracing | None = None,
) -> AsyncIterator[int]:
    """Serve on the running event loop until the block ends, then give calls under way `drain_s`; yield the port."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", max_body_bytes + AROUND_BYTES),
            ("grpc.max_send_message_length", -1),
            # Otherwise a second server could take the same port and half of the requests.
            ("grpc.so_reuseport", 0),
        ]
    )
    server.add_generic_rpc_handlers(handlers(models, keys, tracing))
    port: int = (
        server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    )
    await server.start()
    try:
        yield port
    finally:
        await server.stop(drain_s)
