"""Loads the TLS certificate and its private key."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NoReturn

from mlscale.errors import MLScaleError


def load_tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a TLS context with a certificate, its chain, and its private key, both PEM.

    Raises:
        MLScaleError: they can't be read, are not PEM, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Clients may offer h2 and http/1.1; the server only speaks the latter.
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without this callback OpenSSL asks for a password on the terminal, and the server hangs.
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except OSError as error:  # ssl.SSLError is one
        raise MLScaleError(
            "the certificate or its key can't be used",
            where=f"tls_cert={certificate} tls_key={key}",
            why=getattr(error, "reason", None) or error.strerror or str(error),
            fix="tls_cert=<file>.pem tls_key=<file>.pem, the certificate and its key, which has no password",
        ) from error
    return context


def _refuse_password() -> NoReturn:
    raise OSError("the key has a password")
