"""Requests without a key, with one, and from pages elsewhere, on a real server with TLS and on the application."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.testclient import TestClient

from serve.address import bind
from serve.core.batcher import Batcher
from serve.core.service import Limits, Service
from serve.core.slot import Engine, EngineInfo, Slot
from serve.keys import EVERYBODY, Keyring, read_keys
from serve.models.models import Models, only
from serve.options import ServeOptions
from serve.server import guards_of
from serve.status import ask_status
from serve.tls import Tls
from serve.web.app import app_of
from zoo.errors import ZooError

PATIENCE_S = 60.0
USE, MANAGE = "u" * 22, "m" * 30
KEYS = read_keys(None, {"ZOO_SERVE_KEYS": f"predict {USE},manage {MANAGE}"})


def models_of(fake: Any) -> Models:
    runner = fake()
    batcher = Batcher([runner], queue_capacity=8, max_batch_size=8)
    info = EngineInfo(artifact="fake.onnx", backend=runner.backend, device=runner.device)
    limits = Limits(max_body_bytes=10**6, timeout_s=PATIENCE_S, max_in_flight=8, decode_threads=1, drain_s=1.0)
    return only(Service(Slot(Engine(batcher=batcher, contract=runner.contract, info=info)), limits))


@dataclass
class Server:
    url: str
    models: Models


def run(fake: Any, keys: Keyring, tls: Tls | None) -> Iterator[Server]:
    models, listener = models_of(fake), bind("127.0.0.1", 0)
    config = uvicorn.Config(
        app_of(models, keys=keys), access_log=False, log_config=None, **(tls.for_http() if tls else {})
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    models.default.engine.batcher.warmed.result(PATIENCE_S)
    yield Server(f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}", models)
    server.should_exit = True
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


@pytest.fixture
def guarded(fake: Any) -> Iterator[Server]:
    yield from run(fake, KEYS, None)


def test_without_a_key_only_health_is_told(guarded: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with httpx.Client(base_url=guarded.url, trust_env=False) as client:
        for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200
        for path in ("/", "/info", "/metrics", "/v2", "/v2/models/fake", "/examples", "/nothing", "/docs"):
            reply = client.get(path, headers={"Authorization": "Bearer wrong-wrong-wrong-wrong"})
            assert reply.status_code == 401, path
            assert reply.headers["www-authenticate"].startswith("Basic")
        refused = client.post("/v2/models/fake/infer", content=b"x" * 100_000)
        assert (refused.status_code, refused.headers["connection"]) == (401, "close")
        assert set(refused.json()) == {"error"}
    assert "wrong-wrong" not in caplog.text


def test_a_key_opens_everything_but_management(guarded: Server, fake: Any) -> None:
    with httpx.Client(base_url=guarded.url, trust_env=False, headers={"X-API-Key": USE}) as client:
        assert client.post("/predict", content=fake.png(3)).status_code == 200
        assert client.get("/").status_code == 200
        load = "/v2/repository/models/fake/load"
        assert "role manage" in client.post(load).json()["error"]
        managed = client.post(load, headers={"X-API-Key": MANAGE})
        assert "--model-control" in managed.json()["error"]  # let in, and then told what the server lacks
        assert client.auth is None
        basic = httpx.get(f"{guarded.url}/info", auth=("anyone", USE), trust_env=False)
        assert basic.status_code == 200


def test_pages_from_elsewhere_may_look_at_nothing(guarded: Server, fake: Any) -> None:
    with httpx.Client(base_url=guarded.url, trust_env=False, headers={"X-API-Key": MANAGE}) as client:
        elsewhere = {"Sec-Fetch-Site": "cross-site", "Origin": "https://elsewhere.example"}
        assert client.post("/predict", content=fake.png(3), headers=elsewhere).status_code == 403
        assert (
            client.post("/predict", content=fake.png(3), headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
        )
        reply = client.get("/info", headers=elsewhere)
        assert "access-control-allow-origin" not in reply.headers
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert client.options("/predict", headers=elsewhere).status_code == 405


def test_without_keys_everybody_is_let_in(fake: Any) -> None:
    app = app_of(models_of(fake), keys=EVERYBODY)
    with TestClient(app) as client:
        assert client.get("/info").status_code == 200


# --- TLS -----


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, and a server's and a client's certificate that it signed."""
    pytest.importorskip("cryptography", reason="pip install 'zoo[sign]'")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    folder = tmp_path_factory.mktemp("tls")
    now = datetime.datetime.now(datetime.UTC)
    issued: dict[str, Any] = {}
    for name in ("ca", "server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer, signer = issued.get("ca", (subject, key))
        loopback = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(loopback), critical=False)
            .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
            .sign(signer, hashes.SHA256())
        )
        issued[name] = (subject, key)
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return folder


def trusting(certificates: Path, *, client: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    if client:
        context.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    return context


def test_tls_is_served(fake: Any, certificates: Path) -> None:
    tls = Tls(certificates / "server.pem", certificates / "server.key")
    tls.check()
    for server in run(fake, EVERYBODY, tls):
        reply = httpx.get(f"{server.url}/readyz", verify=trusting(certificates), trust_env=False)
        assert reply.status_code == 200
        with pytest.raises(httpx.HTTPError):
            httpx.get(server.url.replace("https", "http"), trust_env=False)


def test_mutual_tls_lets_in_only_whom_the_ca_signed(fake: Any, certificates: Path) -> None:
    tls = Tls(certificates / "server.pem", certificates / "server.key", certificates / "ca.pem")
    for server in run(fake, EVERYBODY, tls):
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{server.url}/readyz", verify=trusting(certificates), trust_env=False)
        known = httpx.get(f"{server.url}/readyz", verify=trusting(certificates, client=True), trust_env=False)
        assert known.status_code == 200


def test_status_asks_with_the_key_and_the_certificate_of_the_servers_own_options(
    fake: Any, certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = Tls(certificates / "server.pem", certificates / "server.key")
    (tmp_path / "keys").write_text(f"# ours\npredict {USE}\n")
    for server in run(fake, KEYS, tls):
        port = int(server.url.rpartition(":")[2])
        own: dict[str, Any] = {"status": True, "port": port, "tls_cert": tls.cert, "tls_key": tls.key}
        status = ask_status(ServeOptions(**own, api_keys=tmp_path / "keys"))
        assert status.ready and status.url == server.url
        with pytest.raises(ZooError, match="asks for a key"):
            ask_status(ServeOptions(**own))
        monkeypatch.setenv("ZOO_SERVE_KEYS", f"predict {USE}")
        assert ask_status(ServeOptions(**own)).ready
        with pytest.raises(ZooError, match="no common TLS"):
            ask_status(ServeOptions(**own | {"tls_cert": certificates / "client.pem"}))
        with pytest.raises(ZooError, match="Nobody answers"):
            ask_status(ServeOptions(status=True, port=port))


def test_files_that_do_not_belong_together_are_told(certificates: Path) -> None:
    with pytest.raises(ZooError, match="TLS cannot be set up"):
        Tls(certificates / "server.pem", certificates / "client.key").check()
    with pytest.raises(ZooError, match="No such file"):
        Tls(certificates / "missing.pem", certificates / "client.key").check()


def test_control_for_everybody_is_refused(tmp_path: Path, certificates: Path) -> None:
    options: dict[str, Any] = {"models": tmp_path, "model_control": True, "host": "0.0.0.0"}
    with pytest.raises(ZooError, match="everybody who reaches it"):
        guards_of(ServeOptions(**options))
    (tmp_path / "keys").write_text(f"manage {MANAGE}")
    keys, tls = guards_of(ServeOptions(**options, api_keys=tmp_path / "keys"))
    assert keys and tls is None


def test_who_asks_too_often_is_told_when_to_ask_again(fake: Any) -> None:
    models = models_of(fake)
    with TestClient(app_of(models, keys=read_keys(None, {}, 2.0))) as client:
        answers = [client.get("/info") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[2].headers["Retry-After"] == "1"
        assert "More than 2 requests a second" in answers[2].json()["error"]
        assert client.get("/healthz").status_code == 200  # whoever looks after the server is not counted
