"""gRPC behind TLS, and behind mutual TLS: whom the certificate's owner trusts is let in, and nobody else."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from pathlib import Path
from typing import Any

import pytest

grpc = pytest.importorskip("grpc", reason="pip install 'zoo[grpc]'")
x509 = pytest.importorskip("cryptography.x509", reason="pip install 'zoo[sign]'")

from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from cryptography.x509.oid import NameOID  # noqa: E402

from serve.core.batcher import Batcher  # noqa: E402
from serve.core.service import Limits, Service  # noqa: E402
from serve.core.slot import Engine, EngineInfo, Slot  # noqa: E402
from serve.models.models import only  # noqa: E402
from serve.rpc.schema import message_class  # noqa: E402
from serve.rpc.server import grpc_server  # noqa: E402
from serve.tls import Tls  # noqa: E402


@pytest.fixture
def own(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate that signed itself, of server and client alike, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "zoo")])
    now = datetime.datetime.now(datetime.UTC)
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(loopback, critical=False)
        .sign(key, hashes.SHA256())
    )
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


@pytest.mark.parametrize("mutual", [False, True])
def test_only_whom_the_certificate_lets_in_is_answered(fake: Any, own: tuple[Path, Path], mutual: bool) -> None:
    cert, key = own
    runner = fake()
    batcher = Batcher([runner], queue_capacity=8, max_batch_size=8)
    info = EngineInfo(artifact="fake.onnx", backend=runner.backend, device=runner.device)
    limits = Limits(max_body_bytes=10**5, timeout_s=60.0, max_in_flight=8, decode_threads=1, drain_s=1.0)
    models = only(Service(Slot(Engine(batcher=batcher, contract=runner.contract, info=info)), limits))
    tls = Tls(cert, key, cert if mutual else None)
    known = grpc.ssl_channel_credentials(cert.read_bytes(), key.read_bytes(), cert.read_bytes())
    stranger = grpc.ssl_channel_credentials(cert.read_bytes())

    async def ask(port: int, credentials: Any) -> bool:
        address = f"127.0.0.1:{port}"
        opened = grpc.aio.secure_channel(address, credentials) if credentials else grpc.aio.insecure_channel(address)
        async with opened as channel:
            call = channel.unary_unary(
                "/inference.GRPCInferenceService/ServerLive",
                request_serializer=message_class("ServerLiveRequest").SerializeToString,
                response_deserializer=message_class("ServerLiveResponse").FromString,
            )
            try:
                return bool((await call(message_class("ServerLiveRequest")(), timeout=60)).live)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                return False

    async def ask_all() -> list[bool]:
        credentials = tls.for_grpc()
        async with grpc_server(
            models, "127.0.0.1:0", max_body_bytes=10**5, drain_s=1.0, credentials=credentials
        ) as port:
            return [await ask(port, one) for one in (known, stranger, None)]

    assert asyncio.run(ask_all()) == [True, not mutual, False]
