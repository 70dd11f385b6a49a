"""Sends a document to a webhook: a JSON POST, some retries, a time limit. Messages only name its host."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mlscale.errors import MLScaleError
from mlscale.notify.delivery import DeliveryResult, run_with_timeout

_FIRST_PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Webhook:
    """A web address that receives documents.

    Attributes:
        url: http or https; it may hold a secret, so it is never printed.
        timeout_s: seconds that one try may take, from the name lookup to the answer.
        tries: the most tries of one document.
        where: the key path of the address, for messages.
    """

    url: str
    timeout_s: float = 5.0
    tries: int = 3
    where: str = "alert.webhook"

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
                fix="name it as https://<host>/<path>, or http://<host>:<port>/<path>",
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
        """POST `document` as JSON; it has arrived if the answer is 2xx. Redirects are not followed."""
        sent = DeliveryResult(False, True, "not tried")
        for attempt in range(self.tries):
            if attempt:
                # Exponential backoff: 0.2 s, 0.4 s, …
                time.sleep(_FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
            sent = run_with_timeout(self.timeout_s, lambda: self._post_content(encode_document(document)), "webhook")
            if sent.arrived or not sent.can_retry:
                break
        return sent

    def _post_content(self, content: bytes) -> DeliveryResult:
        headers = {"Content-Type": "application/json", "User-Agent": "mlscale"}
        request = urllib.request.Request(self.url, content, headers, method="POST")  # noqa: S310 - http or https, see above
        try:
            with _OPENER.open(request, timeout=self.timeout_s):
                return DeliveryResult(True, False)
        except urllib.error.HTTPError as error:
            error.close()
            # Worth a retry: request timeout, too early, too many requests, and errors of the server.
            return DeliveryResult(
                False, error.code in (408, 425, 429) or error.code >= 500, f"it answered {error.code}"
            )
        except urllib.error.URLError as error:
            reason = error.reason
            why = reason.strerror if isinstance(reason, OSError) and reason.strerror else type(reason).__name__
            return DeliveryResult(False, True, why)
        except Exception as error:  # any error is a failure; its text may hold the address
            return DeliveryResult(False, True, type(error).__name__)


def encode_document(document: Mapping[str, Any]) -> bytes:
    """Return a document as JSON in UTF-8; NaN and infinities raise ValueError."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A handler that reports a redirect as a failure: urllib would follow it by a GET without the document."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)
