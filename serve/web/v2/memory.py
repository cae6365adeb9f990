"""Owns the routes of shared memory: status, registering, unregistering; what a region is, is `serve.regions`'s.

Source: triton-inference-server/server docs/protocol/extension_shared_memory.md.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve.protocol.messages import read_parameter
from serve.regions import Regions
from serve.web.v2.answers import Json, read_small

PREFIX = "/v2/systemsharedmemory"


def memory_routes() -> list[Route]:
    """The routes, for `v2_routes`."""
    region = f"{PREFIX}/region/{{region}}"
    return [
        Route(f"{PREFIX}/status", show_regions),
        Route(f"{region}/status", show_regions),
        Route(f"{region}/register", register, methods=["POST"]),
        Route(f"{region}/unregister", unregister, methods=["POST"]),
        Route(f"{PREFIX}/unregister", unregister, methods=["POST"]),
        # Clients forget everything of both kinds at their end, whether there is any.
        Route("/v2/cudasharedmemory/status", show_no_regions),
        Route("/v2/cudasharedmemory/unregister", forget_no_regions, methods=["POST"]),
    ]


async def show_regions(request: Request) -> Response:
    """What is registered."""
    return Json(_regions(request).status(request.path_params.get("region", "")))


async def register(request: Request) -> Response:
    """Open a client's memory under a name."""
    asked = await read_small(request)
    _regions(request).register(
        request.path_params["region"],
        read_parameter(asked, "key", str, ""),
        read_parameter(asked, "offset", int, 0),
        read_parameter(asked, "byte_size", int, 0),
    )
    return Response()


async def unregister(request: Request) -> Response:
    """Forget a region, or all."""
    await read_small(request)
    _regions(request).unregister(request.path_params.get("region", ""))
    return Response()


async def show_no_regions(request: Request) -> Response:
    """The regions of CUDA memory: none is taken."""
    return Json([])


async def forget_no_regions(request: Request) -> Response:
    """Forget all of none."""
    await read_small(request)
    return Response()


def _regions(request: Request) -> Regions:
    regions: Regions = request.app.state.models.regions
    return regions
