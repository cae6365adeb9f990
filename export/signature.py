"""Owns signed passports: who made these artifacts, by an Ed25519 signature of the passport, which holds their hashes.

`s.sig` is the signature of the bytes of `s.json`, 64 bytes and nothing else, so that OpenSSL makes and checks it too:

    openssl genpkey -algorithm ed25519 -out key.pem
    openssl pkey -in key.pem -pubout -out pub.pem
    openssl pkeyutl -verify -pubin -inkey pub.pem -rawin -in s.json -sigfile s.sig
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from export.passport import check_exists, check_plan, passport_path, read_passport
from export.weights_apart import find_weights
from zoo.errors import ArtifactError, MissingCapabilityError, ZooError
from zoo.files import sha256_of, write_bytes
from zoo.weights.mistaken import EXPORTED_SUFFIXES

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SUFFIX = ".sig"
INSTALL = "pip install 'zoo[sign]'"
MAKE_KEY = "`openssl genpkey -algorithm ed25519 -out KEY.pem` makes one."
MAKE_PUBLIC = "`openssl pkey -in KEY.pem -pubout -out PUB.pem` writes it."


def signature_path(artifact: Path) -> Path:
    """Where the signature of an artifact's passport is: s.onnx, s.plan and s.json → s.sig."""
    return artifact.with_suffix(SUFFIX)


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key, a PEM without a passphrase.

    Raises:
        ZooError: there is none, or it is no such key. MissingCapabilityError: cryptography is not installed.
    """
    serialization, ed25519 = _cryptography()
    text = _read(path, "private key", MAKE_KEY)
    try:
        key = serialization.load_pem_private_key(text, password=None)
    except TypeError as error:
        raise ZooError(
            f"{path} has a passphrase, which nobody is there to type.",
            f"`openssl pkey -in {path} -out PLAIN.pem` takes it off; keep that file where only you can read it.",
        ) from error
    except ValueError as error:
        raise ZooError(f"{path} is not a private key in PEM.", MAKE_KEY) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ZooError(f"{path} is not an Ed25519 key.", MAKE_KEY)
    return cast("Ed25519PrivateKey", key)


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key, a PEM.

    Raises:
        ZooError: there is none, or it is no such key. MissingCapabilityError: cryptography is not installed.
    """
    serialization, ed25519 = _cryptography()
    text = _read(path, "public key", MAKE_PUBLIC)
    if b"PRIVATE KEY" in text:
        raise ZooError(f"{path} is a private key; checking a signature takes the public one.", MAKE_PUBLIC)
    try:
        key = serialization.load_pem_public_key(text)
    except ValueError as error:
        raise ZooError(f"{path} is not a public key in PEM.", MAKE_PUBLIC) from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise ZooError(f"{path} is not an Ed25519 key.", MAKE_PUBLIC)
    return cast("Ed25519PublicKey", key)


def sign_passport(passport: Path, key: Ed25519PrivateKey) -> Path:
    """Write the signature of a passport that has been written beside it, whole or not at all; return its path."""
    path = signature_path(passport)
    write_bytes(path, key.sign(passport.read_bytes()))
    return path


def require_signature(artifact: str, public_key: Path) -> None:
    """Make sure that the owner of a key made an .onnx or a .plan, and that it is as it was made.

    Raises:
        ArtifactError: it is not signed, by another key, or it, its weights or its passport have been changed since.
        ZooError, MissingCapabilityError: as `load_public_key`.
    """
    path = Path(artifact)
    if path.suffix not in EXPORTED_SUFFIXES:
        raise ArtifactError(
            f"{artifact} is no .onnx and no .plan: only these have a passport, which can be signed.",
            "Leave --require-signature out, or export it with `zoo export --sign KEY.pem`.",
        )
    check_exists(path)
    key = load_public_key(public_key)
    passport, signature = passport_path(path), signature_path(path)
    for needed, what in ((passport, "has no passport"), (signature, "is not signed")):
        if not needed.is_file():
            raise ArtifactError(
                f"{artifact} {what}: {needed.name} is not beside it.",
                "Copy it along with the artifact; `zoo export --sign KEY.pem` writes both.",
            )
    _verify(key, passport, signature, public_key)
    _check_file(path)


def _verify(key: Ed25519PublicKey, passport: Path, signature: Path, public_key: Path) -> None:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature.read_bytes(), passport.read_bytes())
    except InvalidSignature as error:
        raise ArtifactError(
            f"{signature.name} is not the signature of {passport.name} by the key of {public_key}: the passport was "
            "changed since it was signed, or by another key.",
            "Fetch artifact, passport and signature again from where they come from, or ask for the right key.",
        ) from error


def _check_file(path: Path) -> None:
    """Check that an artifact is the one its passport describes."""
    if path.suffix == ".plan":
        check_plan(path)
    elif sha256_of(path) != read_passport(path).files.onnx.sha256:
        raise ArtifactError(
            f"{path.name} is not the file that its signed passport describes: it was changed since.",
            "Fetch it again, or export it again with `zoo export --sign KEY.pem`.",
        )
    else:
        find_weights(path)


def _read(path: Path, what: str, hint: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ZooError(f"The {what} {path} cannot be read: {error.strerror}.", hint) from error


def _cryptography() -> tuple[Any, Any]:
    """The two modules of cryptography that are needed.

    Raises:
        MissingCapabilityError: it is not installed.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingCapabilityError("Signatures need the package cryptography.", INSTALL) from error
    return serialization, ed25519
