"""Signed passports: what was changed, or signed by nobody or by another key, is refused with words."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

from export.options import ExportOptions
from export.passport import FileCard, read_passport, write_passport
from export.pipeline import export_model
from export.signature import load_public_key, load_signing_key, require_signature, sign_passport
from serve.engine import open_engine
from serve.options import ServeOptions
from zoo.data.digits import write_samples
from zoo.errors import ArtifactError, MissingCapabilityError, ZooError

Zoo = Callable[..., Any]


@pytest.fixture
def keys(in_folder: Path) -> Path:
    """key.pem and pub.pem, and another pair, in the working folder."""
    pytest.importorskip("cryptography", reason="needs pip install 'zoo[sign]'")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    pem = serialization.Encoding.PEM
    for private, public in (("key.pem", "pub.pem"), ("other.pem", "other-pub.pem")):
        key = Ed25519PrivateKey.generate()
        form = serialization.PrivateFormat.PKCS8
        Path(private).write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
        wide = serialization.PublicFormat.SubjectPublicKeyInfo
        Path(public).write_bytes(key.public_key().public_bytes(pem, wide))
    return in_folder


@pytest.fixture
def signed(keys: Path, tiny_checkpoint: Path, exports_this_graph: ModelProto) -> Path:
    """tiny.onnx with passport and signature."""
    return export_model(ExportOptions(model=str(tiny_checkpoint), parity=False, sign=Path("key.pem"))).onnx


def test_what_was_signed_is_taken_by_every_command(signed: Path, zoo: Zoo) -> None:
    assert signed.with_suffix(".sig").stat().st_size == 64
    require = ("--require-signature", "pub.pem")
    (picture,) = write_samples(Path("pictures"), 1)
    for command in (("predict", signed, picture), ("evaluate", signed, "--data", "digits"), ("inspect", signed)):
        assert zoo(*command, *require).code == 0
    assert json.loads(zoo("inspect", signed, *require, "--json").out)["signature"] == "by the key of pub.pem"
    assert json.loads(zoo("inspect", signed, "--json").out)["signature"] == "not checked"
    open_engine(ServeOptions(engine=str(signed), device="cpu", require_signature=Path("pub.pem"))).close()


@pytest.mark.parametrize("command", ["predict", "evaluate", "inspect", "serve", "bench latency"])
def test_every_command_refuses_before_it_reads_anything(command: str, signed: Path, zoo: Zoo) -> None:
    more = {"predict": ("x.png",), "serve": ("--port", 0)}.get(command, ())
    answer = zoo(*command.split(), signed, *more, "--require-signature", "other-pub.pem")
    assert answer.code == 1 and answer.out == ""
    assert "tiny.sig is not the signature of tiny.json by the key of other-pub.pem" in answer.err


def test_a_changed_file_is_refused(signed: Path) -> None:
    signed.write_bytes(signed.read_bytes() + b"\0")
    with pytest.raises(ArtifactError, match=r"tiny\.onnx is not the file that its signed passport describes"):
        require_signature(str(signed), Path("pub.pem"))


def test_a_changed_passport_is_refused(signed: Path) -> None:
    passport = signed.with_suffix(".json")
    passport.write_text(passport.read_text().replace('"random_weights": false', '"random_weights": true '))
    with pytest.raises(ArtifactError, match="changed since it was signed, or by another key"):
        require_signature(str(signed), Path("pub.pem"))


@pytest.mark.parametrize("content", [b"", b"0" * 64, b"0" * 63])
def test_a_signature_that_is_none_is_refused(content: bytes, signed: Path) -> None:
    signed.with_suffix(".sig").write_bytes(content)
    with pytest.raises(ArtifactError, match="is not the signature of"):
        require_signature(str(signed), Path("pub.pem"))


@pytest.mark.parametrize(("suffix", "said"), [(".sig", "is not signed"), (".json", "has no passport")])
def test_what_is_missing_is_named(suffix: str, said: str, signed: Path) -> None:
    signed.with_suffix(suffix).unlink()
    with pytest.raises(ArtifactError, match=said) as caught:
        require_signature(str(signed), Path("pub.pem"))
    assert "--sign KEY.pem" in caught.value.hint


def test_a_plan_is_held_to_the_signed_passport_too(signed: Path) -> None:
    plan, passport = signed.with_suffix(".plan"), signed.with_suffix(".json")
    plan.write_bytes(b"engine")
    with pytest.raises(ArtifactError, match="knows of no plan"):
        require_signature(str(plan), Path("pub.pem"))
    files = replace(read_passport(signed).files, plan=FileCard.of(plan, "fp16"))
    write_passport(passport, replace(read_passport(signed), files=files))
    with pytest.raises(ArtifactError, match="changed since it was signed"):
        require_signature(str(plan), Path("pub.pem"))
    sign_passport(passport, load_signing_key(Path("key.pem")))
    require_signature(str(plan), Path("pub.pem"))
    plan.write_bytes(b"malice")
    with pytest.raises(ArtifactError, match="not the file its passport describes"):
        require_signature(str(plan), Path("pub.pem"))


def test_a_checkpoint_cannot_be_signed(signed: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no \.onnx and no \.plan"):
        require_signature(str(tiny_checkpoint), Path("pub.pem"))


def test_an_export_that_is_not_signed_leaves_no_signature_behind(signed: Path, tiny_checkpoint: Path) -> None:
    export_model(ExportOptions(model=str(tiny_checkpoint), parity=False))
    assert not signed.with_suffix(".sig").exists()


def test_a_triton_version_has_its_signature(keys: Path, tiny_checkpoint: Path, exports_this_graph: ModelProto) -> None:
    asked = ExportOptions(model=str(tiny_checkpoint), parity=False, sign=Path("key.pem"), triton=Path("models"))
    export_model(asked)
    require_signature("models/tiny/1/model.onnx", Path("pub.pem"))


def test_a_key_that_cannot_sign_is_told_before_the_export(
    keys: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    monkeypatch.setattr("export.pipeline.export_onnx", lambda *_, **__: pytest.fail("exported"))
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    curve = ec.generate_private_key(ec.SECP256R1())
    Path("curve.pem").write_bytes(curve.private_bytes(*form, serialization.NoEncryption()))
    locked = serialization.BestAvailableEncryption(b"secret")
    Path("locked.pem").write_bytes(ed25519.Ed25519PrivateKey.generate().private_bytes(*form, locked))
    Path("words.pem").write_text("no key")
    for name, said in (
        ("curve.pem", "not an Ed25519 key"),
        ("locked.pem", "has a passphrase"),
        ("words.pem", "not a private key in PEM"),
        ("pub.pem", "not a private key in PEM"),
        ("nowhere.pem", "cannot be read"),
    ):
        with pytest.raises(ZooError, match=said):
            export_model(ExportOptions(model=str(tiny_checkpoint), parity=False, sign=Path(name)))
    for name, said in (
        ("key.pem", "is a private key"),
        ("words.pem", "not a public key in PEM"),
        ("nowhere.pem", "cannot be read"),
    ):
        with pytest.raises(ZooError, match=said):
            load_public_key(Path(name))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_checks_the_same_signature(signed: Path) -> None:
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "pub.pem", "-rawin", "-in", "tiny.json"]
    done = subprocess.run([*command, "-sigfile", "tiny.sig"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_cryptography_the_hint_is_the_install_line(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(MissingCapabilityError) as caught:
        export_model(ExportOptions(model="tiny", sign=Path("key.pem")))
    assert caught.value.hint == "pip install 'zoo[sign]'"
