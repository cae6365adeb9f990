"""`--require-signature` with a folder of models: at the start, at a swap, and when an instance is opened again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest

from export.signature import load_signing_key, sign_passport
from serve.core.batcher import Batcher
from serve.engine import open_engine
from serve.models.models import Models
from serve.options import ServeOptions
from serve.repository.control import Repository
from serve.server import limits_of
from zoo.errors import ArtifactError
from zoo.files import sha256_of

PATIENCE_S = 60.0


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with key.pem and pub.pem, and other.pem of somebody else."""
    pytest.importorskip("cryptography", reason="needs pip install 'zoo[sign]'")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    folder, pem = tmp_path / "keys", serialization.Encoding.PEM
    folder.mkdir()
    for name in ("key.pem", "other.pem"):
        key = Ed25519PrivateKey.generate()
        form = serialization.PrivateFormat.PKCS8
        (folder / name).write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
        if name == "key.pem":
            wide = serialization.PublicFormat.SubjectPublicKeyInfo
            (folder / "pub.pem").write_bytes(key.public_key().public_bytes(pem, wide))
    return folder


@pytest.fixture
def opened(fake: Any, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which artifacts came as far as an engine; a fake takes its place."""
    paths: list[Path] = []

    def open_fake(artifact: str, **options: Any) -> Any:
        paths.append(Path(artifact))
        return fake()

    monkeypatch.setattr("serve.engine.open_runner", open_fake)
    return paths


@pytest.fixture
def add(tmp_path: Path, keys: Path, fake: Any) -> Callable[..., Path]:
    """Adds a version of the model `s`: its graph, signed by a key of `keys` or by none."""

    def add_version(version: int, signed_by: str | None = "key.pem") -> Path:
        graph = tmp_path / "models" / "s" / str(version) / "model.onnx"
        graph.parent.mkdir(parents=True)
        onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], f"graph {version}", [], [])), graph)
        card = {"name": "s.onnx", "sha256": sha256_of(graph), "bytes": 7, "precision": "fp32"}
        passport = {
            "format": "zoo-passport-1", "contract": fake().contract.to_dict(), "files": {"onnx": card, "plan": None},
            "builder": None, "parity": {}, "checkpoint": {"source": "test", "sha256": None, "provenance": {}},
            "random_weights": False, "environment": {},
        }  # fmt: skip
        graph.with_suffix(".json").write_text(json.dumps(passport))
        if signed_by:
            sign_passport(graph.with_suffix(".json"), load_signing_key(keys / signed_by))
        return graph

    return add_version


@pytest.fixture
def start(
    tmp_path: Path, keys: Path, opened: list[Path], serve_models: Callable[[Models], httpx.Client]
) -> Callable[[], httpx.Client]:
    """Starts a server of the folder that takes only what key.pem signed."""

    def start_server() -> httpx.Client:
        options = ServeOptions(
            models=tmp_path / "models",
            model_control=True,
            instances=1,
            device="cpu",
            require_signature=keys / "pub.pem",
        )
        return serve_models(Repository(tmp_path / "models", options, limits_of).open_all())

    return start_server


def version_at_work(client: httpx.Client, picture: bytes) -> str:
    reply = client.post("/v2/models/s/infer", content=picture, headers={"Content-Type": "image/png"})
    assert reply.status_code == 200
    version: str = reply.json()["model_version"]
    return version


def load(client: httpx.Client) -> httpx.Response:
    return client.post("/v2/repository/models/s/load")


@pytest.mark.parametrize("signed_by", [None, "other.pem"])
def test_a_version_that_the_owner_did_not_sign_is_not_served_and_the_old_one_goes_on(
    start: Callable[[], httpx.Client],
    add: Callable[..., Path],
    opened: list[Path],
    fake: Any,
    tmp_path: Path,
    signed_by: str | None,
) -> None:
    add(1)
    client = start()
    foreign = add(2, signed_by)
    reply = load(client)
    assert reply.status_code == 500
    assert re.search(r"(?i)s/2/model\.onnx is not signed|not the signature of model\.json", reply.json()["error"])
    assert str(tmp_path) not in reply.text
    assert version_at_work(client, fake.png(3)) == "1"
    assert foreign not in opened
    rows = client.post("/v2/repository/index").json()
    assert [(row["version"], row["state"]) for row in rows] == [("1", "READY"), ("2", "UNAVAILABLE")]
    assert str(tmp_path) not in json.dumps(rows) and "sign" in rows[1]["reason"]


def test_a_signed_version_takes_over(start: Callable[[], httpx.Client], add: Callable[..., Path], fake: Any) -> None:
    add(1)
    client = start()
    add(2)
    assert load(client).status_code == 200
    assert version_at_work(client, fake.png(3)) == "2"


def test_a_signed_version_whose_graph_was_changed_is_not_served(
    start: Callable[[], httpx.Client], add: Callable[..., Path], fake: Any
) -> None:
    add(1)
    client = start()
    add(2).write_bytes(b"another graph")
    reply = load(client)
    assert reply.status_code == 500 and "changed since" in reply.json()["error"]
    assert version_at_work(client, fake.png(3)) == "1"


def test_a_folder_with_an_unsigned_model_does_not_start(
    start: Callable[[], httpx.Client], add: Callable[..., Path], opened: list[Path]
) -> None:
    add(1, None)
    with pytest.raises(ArtifactError, match="is not signed"):
        start()
    assert not opened


def test_an_instance_that_is_opened_again_is_checked_again(
    keys: Path, add: Callable[..., Path], opened: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    reopeners: list[Callable[[], Any]] = []

    class Noting(Batcher):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            reopeners.append(options["reopen"])
            super().__init__(*arguments, **options)

    monkeypatch.setattr("serve.engine.Batcher", Noting)
    graph = add(1)
    options = ServeOptions(engine=str(graph), instances=1, device="cpu", require_signature=keys / "pub.pem")
    with open_engine(options).runners:
        (reopen,) = reopeners
        reopen()
        graph.write_bytes(b"exchanged while it was served")
        with pytest.raises(ArtifactError, match="changed since"):
            reopen()
    assert opened == [graph, graph]
