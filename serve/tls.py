"""Owns TLS: certificate, key and whose clients are let in, checked before anything slow happens."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import ZooError


@dataclass(frozen=True)
class Tls:
    """The files of a server's TLS; with `client_ca` only clients that it has signed are let in."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    def check(self) -> None:
        """Make sure that the files can be used.

        Raises:
            ZooError: one cannot be read, or key and certificate do not belong together.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.cert, self.key, password=lambda: _no_passphrase(self.key))
            if self.client_ca:
                context.load_verify_locations(self.client_ca)
        except (OSError, ssl.SSLError) as error:
            said = error.strerror or str(error)
            files = ", ".join(str(path) for path in (self.cert, self.key, self.client_ca) if path)
            raise ZooError(
                f"TLS cannot be set up with {files}: {said}.",
                "They are PEM files: the certificate first, behind it its chain; the key without a passphrase.",
            ) from error

    def for_http(self) -> dict[str, Any]:
        """As uvicorn takes it; Python's default is TLS 1.2 at least."""
        return {
            "ssl_certfile": str(self.cert),
            "ssl_keyfile": str(self.key),
            "ssl_ca_certs": str(self.client_ca) if self.client_ca else None,
            "ssl_cert_reqs": ssl.CERT_REQUIRED if self.client_ca else ssl.CERT_NONE,
        }

    def for_grpc(self) -> Any:
        """As gRPC takes it."""
        import grpc

        return grpc.ssl_server_credentials(
            [(self.key.read_bytes(), self.cert.read_bytes())],
            root_certificates=self.client_ca.read_bytes() if self.client_ca else None,
            require_client_auth=self.client_ca is not None,
        )


def _no_passphrase(key: Path) -> str:
    raise ZooError(
        f"{key} has a passphrase, which nobody is there to type.",
        f"`openssl pkey -in {key} -out PLAIN.pem` takes it off; keep that file where only the server can read it.",
    )
