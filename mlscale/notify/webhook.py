"""Sends a document to a webhook: a JSON POST, some retries, a time limit. Messages only name its host."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from mlscale.errors import MLScaleError
from mlscale.notify.delivery import DeliveryResult, SendProgress, run_with_timeout
from mlscale.notify.document_text import build_idempotency_key, encode_document

_FIRST_PAUSE_SECONDS = 0.2
_GATEWAY = (502, 504)  # of a gateway, whose server may have the document all the same


@dataclass(frozen=True)
class Webhook:
    """A web address that receives documents.

    Attributes:
        url: http or https; it may hold a secret, so it is never printed.
        timeout_s: seconds that one try may take, from the name lookup until the document is sent and answered.
        tries: the most tries of one document.
        where: the key path of the address, for messages.
        answer_s: seconds more for the answer, once all of the document was sent.
    """

    url: str
    timeout_s: float = 5.0
    tries: int = 3
    where: str = "alert.webhook"
    answer_s: float = 20.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            whole = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        except ValueError:
            whole = False
        if not whole or any(character.isspace() for character in self.url):
            raise MLScaleError(
                "the webhook is not the address of a web server",
                where=self.where,
                fix=f"{self.where}=<https://host/path>",
            )

    # The dataclass would print the whole address, which may hold a secret.
    def __repr__(self) -> str:
        return f"Webhook({self.host})"

    @property
    def host(self) -> str:
        """The host, the part of the address that may be printed."""
        return str(urlsplit(self.url).hostname)

    @property
    def label(self) -> str:
        """The recipient, for messages."""
        return f"the webhook at {self.host}"

    def send_document(self, document: Mapping[str, Any]) -> DeliveryResult:
        """POST `document` as JSON; it has arrived if the answer is 2xx. Redirects are not followed.

        What may have arrived is not sent again: a slow receiver would get it twice.
        """
        sent = DeliveryResult(False, True, "not tried")
        for attempt in range(self.tries):
            if attempt:
                # Exponential backoff: 0.2 s, 0.4 s, …
                time.sleep(_FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
            sent = self._try_once(document)
            if sent.arrived or not sent.can_retry or sent.may_have_arrived:
                break
        return sent

    def _try_once(self, document: Mapping[str, Any]) -> DeliveryResult:
        progress = SendProgress(self.answer_s)
        headers = {"Content-Type": "application/json", "User-Agent": "mlscale"}
        if key := build_idempotency_key(document):
            headers["Idempotency-Key"] = key
        request = urllib.request.Request(self.url, encode_document(document), headers, method="POST")  # noqa: S310 - http or https, see above
        return run_with_timeout(self.timeout_s, lambda: self._post_request(request, progress), "webhook", progress)

    def _post_request(self, request: urllib.request.Request, progress: SendProgress) -> DeliveryResult:
        opener = urllib.request.build_opener(_NoRedirects, _PlainHandler(progress), _TlsHandler(progress))
        try:
            with opener.open(request, timeout=self.timeout_s):
                return DeliveryResult(True, False)
        except urllib.error.HTTPError as error:
            error.close()
            # Worth a retry: request timeout, too early, too many requests, and errors of the server.
            can_retry = error.code in (408, 425, 429) or error.code >= 500
            return DeliveryResult(False, can_retry, f"it answered {error.code}", error.code in _GATEWAY)
        except urllib.error.URLError as error:
            reason = error.reason
            why = reason.strerror if isinstance(reason, OSError) and reason.strerror else type(reason).__name__
            return DeliveryResult(False, True, why, progress.is_sent)
        except Exception as error:  # any error is a failure; its text may hold the address
            return DeliveryResult(False, True, type(error).__name__, progress.is_sent)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A handler that reports a redirect as a failure: urllib would follow it by a GET without the document."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


class _PlainHandler(urllib.request.HTTPHandler):
    """Opens connections that record when a request was sent."""

    def __init__(self, progress: SendProgress) -> None:
        super().__init__()
        self._progress = progress

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_PlainConnection, progress=self._progress), req)


class _TlsHandler(urllib.request.HTTPSHandler):
    """The same for https; certificates are verified."""

    def __init__(self, progress: SendProgress) -> None:
        super().__init__()
        self._progress = progress

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_TlsConnection, progress=self._progress), req)


class _PlainConnection(http.client.HTTPConnection):
    def __init__(self, host: str, *, progress: SendProgress, timeout: float) -> None:
        super().__init__(host, timeout=timeout)
        self._progress = progress

    def getresponse(self) -> http.client.HTTPResponse:
        # urllib calls this once the whole request has been sent.
        self._progress.await_answer(self.sock)
        return super().getresponse()


class _TlsConnection(http.client.HTTPSConnection):
    def __init__(self, host: str, *, progress: SendProgress, timeout: float) -> None:
        super().__init__(host, timeout=timeout)
        self._progress = progress

    def getresponse(self) -> http.client.HTTPResponse:
        self._progress.await_answer(self.sock)
        return super().getresponse()
