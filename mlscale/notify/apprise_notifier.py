"""Notifies by any service that the library apprise knows (Slack, Teams, Telegram, ntfy, …), named by its address.

Messages only name the kind of service: any part of an address, the host included, may be a token.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mlscale.errors import MLScaleError
from mlscale.notify.delivery import DeliveryResult, run_with_timeout
from mlscale.notify.document_text import format_document

# The colour or icon of a message, by the status of an alert or the event of a notice.
_KINDS: Mapping[str, Literal["info", "success", "warning", "failure"]] = {
    "firing": "failure", "resolved": "success",
    "finished": "success", "failed": "failure", "diverged": "failure", "hung": "failure", "stopped": "warning",
}  # fmt: skip
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


@dataclass(frozen=True)
class AppriseNotifier:
    """A service of apprise.

    Attributes:
        url: as apprise has it, `slack://…` or `mailtos://…`; it may hold a secret, so it is never printed.
        timeout_s: seconds that a message may take.
        where: the key path of the address, for messages.
    """

    url: str
    timeout_s: float = 10.0
    where: str = "apprise"
    _service: Any = field(init=False, compare=False)

    def __post_init__(self) -> None:
        service = _create_service(self.url, self.timeout_s)
        if service is None:
            raise MLScaleError(
                "not an address of an apprise service",
                where=self.where,
                why="its scheme is unknown to apprise, or a part of it is missing",
                fix=f"{self.where}=['${{oc.env:MY_APPRISE}}'], a variable with an address such as mailtos://user:pass@host",
            )

        object.__setattr__(self, "_service", service)

    # The dataclass would print the whole address, which may hold a secret.
    def __repr__(self) -> str:
        return f"AppriseNotifier({self.scheme})"

    @property
    def scheme(self) -> str:
        """The kind of service, the part of the address that may be printed."""
        match = _SCHEME.match(self.url)
        return match[1].lower() if match else "unknown"

    @property
    def label(self) -> str:
        """The recipient, for messages."""
        return f"the {self.scheme} service of apprise"

    def send_document(self, document: Mapping[str, Any]) -> DeliveryResult:
        """Send a document of the contract 'alert' or 'notice' as a message, once."""
        title, _, _ = str(document["sentence"]).partition("\n")
        kind = _KINDS.get(str(document.get("status", document.get("event"))), "info")
        return run_with_timeout(
            self.timeout_s, lambda: self._send_message(title, format_document(document), kind), "mlscale-apprise"
        )

    def _send_message(self, title: str, text: str, kind: str) -> DeliveryResult:
        try:
            arrived = bool(self._service.notify(body=text, title=title, notify_type=kind))
        except Exception as error:  # any error: a message must not end a run; its text may hold a secret
            return DeliveryResult(False, True, type(error).__name__)
        # apprise does not report whether the service is away or refuses.
        return DeliveryResult(arrived, not arrived, "" if arrived else "it did not take the message")


def _create_service(url: str, timeout_s: float) -> Any:
    """Return apprise's object for an address; None where it is not valid."""
    import apprise

    # Its lines quote parts of addresses; what is wrong is reported by the callers.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    # In the calling thread: it has a time limit already.
    service = apprise.Apprise(asset=apprise.AppriseAsset(app_id="mlscale", app_desc="mlscale", async_mode=False))
    with warnings.catch_warnings():
        # The first address loads the code of all services, and some of them import what Python has deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        if not service.add(url):
            return None
    for server in service:
        # By default apprise gives up after four seconds of silence, when a slow service may have the message, and would
        # get it again. One more second: the time limit of this module is to end first.
        server.socket_read_timeout = max(timeout_s + 1.0, server.socket_read_timeout)
    return service
