"""Requests to the server before Locust starts: check that it answers, and read the metadata of its model."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from mlscale.errors import Exit, MLScaleError
from mlscale.loadtest.build_requests import LoadRequest
from mlscale.loadtest.server_model import ServerModel

_CONNECT_SECONDS, _ANSWER_SECONDS = 0.8, 5.0
_LARGEST = 16 << 20
"""The most bytes of an answer that are read."""


@dataclass(frozen=True)
class Credentials:
    """The API key for a server, and the certificate authority to verify it.

    Attributes:
        key: of its API; None where it needs none.
        ca_file: verifies its certificate; None for the certificates that the system trusts.
    """

    # Not in `repr`: it must not get into logs and tracebacks.
    key: str | None = field(default=None, repr=False)
    ca_file: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers of each request."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def create_tls_context(self) -> ssl.SSLContext:
        """Return the TLS context.

        Raises:
            MLScaleError: `ca_file` can't be read.
        """
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise MLScaleError(
                f"{self.ca_file} can't be used", where="ca_file", why=error.strerror or str(error), fix="ca_file=ca.pem"
            ) from error


def request_model_metadata(url: str, name: str | None = None, credentials: Credentials | None = None) -> ServerModel:
    """Request the metadata of the server's model, `GET /v2/models/<name>`.

    Args:
        url: http://host:port.
        name: of the model; None for the only one that `POST /v2/repository/index` lists.
        credentials: for the server.

    Raises:
        MLScaleError: the server does not answer (exit code 5, within a second), the model is unknown, or this load test
            does not support it.
    """
    credentials = credentials or Credentials()
    name = name or _find_only_model(url, credentials)
    document = _request_json(url, "GET", f"/v2/models/{quote(name, safe='')}", credentials)
    try:
        return ServerModel.parse_metadata(name, document)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise MLScaleError(
            f"{name} can't be load-tested",
            where=f"{url}/v2/models/{name}",
            why=f"its metadata is not that of the V2 protocol: {type(error).__name__} {error}",
            fix="model_name=<another model of this server>",
        ) from error


def send_once(
    url: str, question: LoadRequest, credentials: Credentials, timeout_s: float
) -> tuple[int, dict[str, str], bytes] | None:
    """Send one request and return the status, headers and body of its answer; None if there is none in time."""
    connection = _create_connection(url, credentials)
    try:
        connection.timeout = timeout_s
        path = urlsplit(url).path.rstrip("/") + question.path
        connection.request("POST", path, question.body, {**question.headers, **credentials.headers})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read(_LARGEST)
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _find_only_model(url: str, credentials: Credentials) -> str:
    """Return the name of the server's only model."""
    listed = _request_json(url, "POST", "/v2/repository/index", credentials)
    entries = listed if isinstance(listed, list) else []
    names = sorted({str(entry["name"]) for entry in entries if isinstance(entry, dict) and "name" in entry})
    if len(names) == 1:
        return names[0]
    raise MLScaleError(
        f"the server has {len(names)} models",
        where=url,
        why=", ".join(names[:8]),
        fix=f"model_name={names[0]}" if names else "model_name=<the model's name>",
    )


def _request_json(url: str, method: str, path: str, credentials: Credentials) -> Any:
    connection = _create_connection(url, credentials)
    try:
        connection.connect()
        # The connection has its own, shorter time: a wrong address is reported within a second.
        connection.sock.settimeout(_ANSWER_SECONDS)
        connection.request(method, urlsplit(url).path.rstrip("/") + path, headers=credentials.headers)
        response = connection.getresponse()
        body = response.read(_LARGEST)
    except (OSError, http.client.HTTPException) as error:
        raise MLScaleError(
            f"no server answers at {url}",
            where=url,
            why=" ".join(str(error).split()) or type(error).__name__,
            fix="mlscale serve <model>\nmlscale loadtest http://<host>:<port>",
            exit=Exit.ENVIRONMENT,
        ) from error
    finally:
        connection.close()
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if response.status != 200 or document is None:
        reason = document.get("error") if isinstance(document, dict) else None
        raise MLScaleError(
            f"the server does not report what its model takes: {method} {path} is {response.status}",
            where=url,
            why=" ".join(str(reason).split())[:300] if reason else "",
            fix="api_key='${oc.env:SERVE_KEY}'"
            if response.status == 401
            else "model_name=<the model's name>; it is to speak the V2 inference protocol, as mlscale serve does",
        )
    return document


def _create_connection(url: str, credentials: Credentials) -> http.client.HTTPConnection:
    try:
        parts = urlsplit(url)
        if not parts.hostname:
            raise ValueError("no host")
        if parts.scheme == "https":
            context = credentials.create_tls_context()
            return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=_CONNECT_SECONDS, context=context)
        if parts.scheme != "http":
            raise ValueError("another scheme")
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=_CONNECT_SECONDS)
    except (KeyError, ValueError, http.client.InvalidURL) as error:
        fix = "mlscale loadtest " + ("http://127.0.0.1:8000" if "://" in url else f"http://{url}")
        raise MLScaleError(f"'{url}' is not the address of a server", where=f"ref={url}", fix=fix) from error
