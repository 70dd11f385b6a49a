"""Sends a mail through a user's own server (RFC 5321, with STARTTLS or TLS). Messages only name the host."""

from __future__ import annotations

import contextlib
import hashlib
import smtplib
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any, Literal, get_args

from mlscale.errors import MLScaleError
from mlscale.notify.delivery import DeliveryResult, SendProgress, run_with_timeout
from mlscale.notify.document_text import build_idempotency_key, format_document

Security = Literal["starttls", "tls", "none"]
_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_SUBJECT = 200  # characters
_DOMAIN = "mlscale.invalid"
_QUIT_SECONDS = 2.0


@dataclass(frozen=True)
class MailNotifier:
    """A mail server and the addresses of a mail.

    Attributes:
        host: of the SMTP server.
        to: addresses of the recipients.
        sender: address of the sender.
        port: None for the default: 587 with starttls, 465 with tls, 25 with none.
        security: starttls encrypts after the greeting, tls from the first byte, none not at all: then a login is only
            allowed on this machine.
        user, password: the login; None for a server without one.
        timeout_s: seconds that a mail may take.
        where: the key path of these settings, for messages.
        answer_s: seconds more for the answer, once the mail itself is being sent.
    """

    host: str
    to: Sequence[str]
    sender: str
    port: int | None = None
    security: Security = "starttls"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    timeout_s: float = 10.0
    where: str = "mail"
    answer_s: float = 20.0

    def __post_init__(self) -> None:
        if isinstance(self.to, str):
            object.__setattr__(self, "to", [self.to])
        wrong = [
            address for address in [*self.to, self.sender] if "@" not in address or any(c.isspace() for c in address)
        ]
        if wrong or not self.to:
            raise MLScaleError(
                f"a mail needs addresses, and {wrong[0]!r} is none" if wrong else "a mail needs a recipient",
                where=f"{self.where}.to, {self.where}.sender",
                fix=f"{self.where}.to=[me@example.org] {self.where}.sender=runs@example.org",
            )
        if self.security not in get_args(Security):
            raise MLScaleError(
                f"{self.where}.security is {self.security!r}",
                where=f"{self.where}.security",
                why=f"it is one of {', '.join(get_args(Security))}",
                fix=f"{self.where}.security=starttls",
            )
        if self.user and self.security == "none" and self.host not in ("127.0.0.1", "localhost", "::1"):
            raise MLScaleError(
                "a password would cross the network as plain text",
                where=f"{self.where}.security=none",
                fix=f"{self.where}.security=starttls",
            )

    @property
    def label(self) -> str:
        """The recipient, for messages."""
        return f"the mail server {self.host}"

    def send_document(self, document: Mapping[str, Any]) -> DeliveryResult:
        """Send a document of the contract 'alert' or 'notice' as a mail. Each time with the same Message-ID."""
        subject = str(document["sentence"]).partition("\n")[0]
        return self.send_mail(subject, format_document(document), build_idempotency_key(document))

    def send_mail(self, subject: str, text: str, key: str = "") -> DeliveryResult:
        """Send one mail, without retries: after a lost answer a retry would send a second one.

        Args:
            key: of the mail, which becomes its Message-ID, so that a second one is recognised; '' for a random one.
        """
        message = EmailMessage()
        # On one line: EmailMessage raises on a line end in a header.
        message["Subject"] = " ".join(subject.split())[:_SUBJECT]
        message["From"], message["To"] = self.sender, ", ".join(self.to)
        # By default the id has this machine's name, which is private; `.invalid` is reserved (RFC 2606).
        message["Date"], message["Message-ID"] = formatdate(localtime=True), make_msgid(domain=_DOMAIN)
        if key:
            del message["Message-ID"]
            message["Message-ID"] = f"<{hashlib.sha256(key.encode()).hexdigest()[:32]}@{_DOMAIN}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no automatic replies
        message.set_content(text)
        progress = SendProgress(self.answer_s)
        return run_with_timeout(
            self.timeout_s, lambda: self._deliver_message(message, progress), "mlscale-mail", progress
        )

    def _deliver_message(self, message: EmailMessage, progress: SendProgress) -> DeliveryResult:
        # The default context verifies the server's certificate, with STARTTLS, too.
        context = ssl.create_default_context()
        port = self.port or _PORTS[self.security]
        try:
            if self.security == "tls":
                server: smtplib.SMTP = smtplib.SMTP_SSL(self.host, port, timeout=self.timeout_s, context=context)
            else:
                server = smtplib.SMTP(self.host, port, timeout=self.timeout_s)
            try:
                if self.security == "starttls":
                    server.starttls(context=context)
                if self.user:
                    server.login(self.user, self.password or "")
                # A server may scan a mail for minutes before it takes it (RFC 5321, 4.5.3.2.6).
                progress.await_answer(server.sock)
                refused = server.send_message(message)
            finally:
                _end_session(server)
        except smtplib.SMTPResponseException as error:
            # SMTP: 4xx is a temporary failure, 5xx a permanent one.
            return DeliveryResult(False, 400 <= error.smtp_code < 500, f"it answered {error.smtp_code}")
        except Exception as error:  # any error: a mail must not end a run; its text may hold a secret
            why = getattr(error, "strerror", None) or type(error).__name__
            return DeliveryResult(False, True, why, progress.is_sent)
        return DeliveryResult(
            True, False, f"{len(refused)} of {len(self.to)} addresses were refused" if refused else ""
        )


def _end_session(server: smtplib.SMTP) -> None:
    """Send QUIT, and close the connection: an error here must not make a mail that was taken look lost."""
    if server.sock is not None:
        server.sock.settimeout(_QUIT_SECONDS)
    with contextlib.suppress(OSError, smtplib.SMTPException):
        server.quit()
    server.close()
