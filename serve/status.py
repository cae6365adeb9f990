"""Owns what `zoo serve --status` tells: how the server of these options is, asked over HTTP; it starts none."""

from __future__ import annotations

import json
import os
import ssl
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import quote

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.text import Text

from serve.address import in_url, reachable
from serve.keys import VARIABLE, first_key
from serve.options import ServeOptions
from zoo.console import FittingTable
from zoo.errors import ZooError
from zoo.rows import CountOrNone, NotNegative, Row
from zoo.rows import Text as Words
from zoo.wording import digits

TIMEOUT_S = 10.0
# The protocol's words for the stages of a request, and ours.
STAGES = {"compute_input": "decode", "queue": "queue", "compute_infer": "compute", "compute_output": "encode"}


@dataclass(frozen=True, kw_only=True)
class Stage(Row):
    """Where answered requests spent their time: the mean since the start; `decode` has the wait for a thread in it."""

    name: Words
    mean_ms: NotNegative


@dataclass(frozen=True, kw_only=True)
class ModelStatus(Row):
    """One version of a model; counts are since it was loaded, `latency` is empty before its first answer.

    The engine is told of the newest version of each model, and of the others None.
    """

    name: Words
    version: Words
    ready: bool
    reason: str
    engine: str | None
    instances: CountOrNone | None
    queued: CountOrNone
    queue_capacity: CountOrNone | None
    requests: CountOrNone
    failed: CountOrNone
    pictures: CountOrNone
    batches: CountOrNone
    latency: tuple[Stage, ...] = ()
    total_ms: NotNegative | None = None


@dataclass(frozen=True, kw_only=True)
class ServerStatus(Row):
    """What a server says of itself; `answers` counts them by status, `refused` predictions by reason."""

    url: Words
    version: Words
    ready: bool
    reason: str
    in_flight: CountOrNone
    restarts: CountOrNone
    memory_bytes: CountOrNone | None
    answers: Mapping[str, int]
    refused: Mapping[str, int]
    models: tuple[ModelStatus, ...]


def ask_status(options: ServeOptions) -> ServerStatus:
    """Ask the server that these options would start, at their host and port, with a key of theirs.

    Raises:
        ZooError: nobody listens there, it is another server, or it wants a key or certificate that is not at hand.
    """
    server = _Server(options)
    ready, said = server.get("/readyz")
    metadata = server.want("/v2")
    listed = {(row["name"], row["version"]): row for row in server.want("/v2/repository/index", method="POST")}
    metrics = _Metrics(server.text("/metrics"))
    at_work = server.want("/v2/models/stats")["model_stats"]
    newest = {one["name"]: one["version"] for one in sorted(at_work, key=lambda one: int(one["version"]))}
    models = []
    for stats in at_work:
        found = listed.get((stats["name"], stats["version"]), {"state": "UNAVAILABLE", "reason": ""})
        is_newest = newest[stats["name"]] == stats["version"]
        info = server.want(f"/info?model={quote(stats['name'])}") if is_newest else {}
        models.append(_model(stats, found, info, metrics.waiting(stats["name"], stats["version"])))
    return ServerStatus(
        url=server.url,
        version=metadata["version"],
        ready=ready == 200,
        reason="" if ready == 200 else said.get("error", f"status {ready}"),
        in_flight=int(metrics.sum("zoo_in_flight")),
        restarts=int(metrics.sum("zoo_restarts")),
        memory_bytes=int(metrics.sum("process_resident_memory_bytes")) or None,
        answers=metrics.by("zoo_requests_total", "status"),
        refused=metrics.by("zoo_rejected_total", "reason"),
        models=tuple(models),
    )


def _model(stats: Mapping[str, Any], listed: Mapping[str, str], info: Mapping[str, Any], queued: int) -> ModelStatus:
    spent = stats["inference_stats"]
    answered = spent["success"]["count"]
    means = {name: spent[name]["ns"] / answered / 1e6 if answered else 0.0 for name in (*STAGES, "success")}
    engine = ", ".join(filter(None, (info.get(each) for each in ("artifact", "backend", "device", "precision"))))
    return ModelStatus(
        name=stats["name"],
        version=stats["version"],
        ready=listed["state"] == "READY",
        reason=listed["reason"],
        engine=engine or None,
        instances=info.get("instances"),
        queued=queued,
        queue_capacity=info.get("queue_capacity"),
        requests=answered,
        failed=spent["fail"]["count"],
        pictures=stats["inference_count"],
        batches=stats["execution_count"],
        latency=tuple(Stage(name=ours, mean_ms=means[name]) for name, ours in STAGES.items()) if answered else (),
        total_ms=means["success"] if answered else None,
    )


def show_status(status: ServerStatus, console: Console) -> None:
    """Print it for people."""
    state = Text("ready", style="green") if status.ready else Text(f"not ready: {status.reason}", style="red")
    console.print(Text.assemble((status.url, "bold"), f"  zoo {status.version}  ", state), soft_wrap=True)
    for name, counts in (("answers", status.answers), ("refused", status.refused)):
        if counts:
            console.print(Text(f"{name}  {', '.join(f'{count} × {what}' for what, count in counts.items())}"))
    memory = "" if status.memory_bytes is None else f"  memory {status.memory_bytes / 1e6:.0f} MB"
    console.print(Text(f"under way {status.in_flight}  engines opened again {status.restarts}{memory}"))
    stages = tuple(STAGES.values())
    table = FittingTable("model", "version", "state", "instances", "waiting", "requests", "failed", "a batch")
    for head in (*stages, "total"):
        table.add_column(f"{head}, ms", justify="right")
    for model in status.models:
        room = "" if model.queue_capacity is None else f" of {model.queue_capacity}"
        times = [] if model.total_ms is None else [*(stage.mean_ms for stage in model.latency), model.total_ms]
        table.add_row(
            model.name,
            model.version,
            "ready" if model.ready else model.reason,
            str(model.instances or "–"),
            f"{model.queued}{room}",
            str(model.requests),
            str(model.failed),
            digits(model.pictures / model.batches) if model.batches else "–",
            *(map(digits, times) if times else ["–"] * (len(stages) + 1)),
        )
    console.print(table)
    for model in status.models:
        if model.engine:
            console.print(Text(f"{model.name}: {model.engine}", style="dim"), soft_wrap=True)


class _Metrics:
    """What `/metrics` says, by name and label."""

    def __init__(self, text: str) -> None:
        families = text_string_to_metric_families(text)
        self._samples = [sample for family in families for sample in family.samples]

    def sum(self, name: str) -> float:
        """Of all series of a name."""
        return sum(sample.value for sample in self._samples if sample.name == name)

    def by(self, name: str, label: str) -> dict[str, int]:
        """Sums by a label, of those that are not 0."""
        sums: Counter[str] = Counter()
        for sample in self._samples:
            if sample.name == name and sample.value:
                sums[sample.labels[label]] += int(sample.value)
        return dict(sorted(sums.items()))

    def waiting(self, model: str, version: str) -> int:
        """Pictures in a model's queue."""
        own = {"model": model, "version": version}
        name = "nv_inference_pending_request_count"
        return int(sum(sample.value for sample in self._samples if sample.name == name and sample.labels == own))


class _Server:
    """The server at the address of some options."""

    def __init__(self, options: ServeOptions) -> None:
        self._host, self._port = reachable(options.host), options.port
        self._tls = _trust(options) if options.tls_cert else None
        self.url = f"http{'s' if self._tls else ''}://{in_url(self._host)}:{self._port}"
        key = first_key(options.api_keys, os.environ)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def get(self, path: str, method: str = "GET") -> tuple[int, dict[str, Any]]:
        """Status and JSON of an answer; {} where it has another form."""
        status, body = self._ask(path, method)
        try:
            found = json.loads(body)
        except ValueError:
            found = {}
        return status, found

    def want(self, path: str, method: str = "GET") -> Any:
        """The JSON of a 200.

        Raises:
            ZooError: another answer.
        """
        status, found = self.get(path, method)
        if status in (401, 403):
            raise ZooError(
                f"{self.url} asks for a key.", f"Name its file with --api-keys, or put one into {VARIABLE}: predict KEY"
            )
        if status != 200 or not found:
            said = found.get("error", "") if isinstance(found, dict) else ""
            raise ZooError(
                f"{self.url}{path} answers {status}{f': {said}' if said else ''}.",
                "Is that a server of `zoo serve`? --host and --port say where to ask.",
            )
        return found

    def text(self, path: str) -> str:
        """The text of an answer."""
        return self._ask(path, "GET")[1].decode("utf-8", "replace")

    def _ask(self, path: str, method: str) -> tuple[int, bytes]:
        made = (
            HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
            if self._tls is None
            else HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=self._tls)
        )
        try:
            made.request(method, path, headers=self._headers)
            answer = made.getresponse()
            return answer.status, answer.read()
        except ssl.SSLError as error:
            raise ZooError(
                f"{self.url} and this command find no common TLS: {error.reason or error}.",
                "Give --tls-cert and --tls-key as that server has them, or none where it serves http.",
            ) from error
        except TimeoutError as error:
            raise ZooError(f"{self.url} does not answer within {TIMEOUT_S:g} s.", "Look at its log.") from error
        except (OSError, HTTPException) as error:
            raise ZooError(
                f"Nobody answers at {self.url}: {getattr(error, 'strerror', None) or type(error).__name__}.",
                "Start it with `zoo serve ARTIFACT`, or say where it is with --host and --port.",
            ) from error
        finally:
            made.close()


def _trust(options: ServeOptions) -> ssl.SSLContext:
    """A context that trusts the very certificate that these options serve, and shows it where the server asks for one.

    Its names may be those of another machine's view, so it is the certificate that counts and not the name in it.

    Raises:
        ZooError: its files cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(options.tls_cert)
        if options.tls_client_ca and options.tls_cert:
            context.load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ZooError(f"{options.tls_cert} cannot be used: {error}.", "It is a PEM file.") from error
    return context
