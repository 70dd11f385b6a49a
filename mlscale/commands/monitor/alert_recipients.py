"""The recipients of alerts by the settings `alert.*`: a webhook, a command, a mail server, services of apprise."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from mlscale.errors import MLScaleError, raise_all
from mlscale.export.required_extras import require_extra
from mlscale.notify.apprise_notifier import AppriseNotifier
from mlscale.notify.command_notifier import CommandNotifier
from mlscale.notify.delivery import DocumentRecipient
from mlscale.notify.mail_notifier import MailNotifier
from mlscale.notify.webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from omegaconf import DictConfig


def create_recipients(alert: DictConfig) -> dict[str, DocumentRecipient]:
    """Return the recipients of alerts, by the names of their folders of the outbox.

    Raises:
        MLScaleError: all wrong settings at once, or apprise is not installed (exit code 5).
    """
    recipients: dict[str, DocumentRecipient] = {}
    problems: list[MLScaleError] = []
    for name, where in _list_wanted(alert):
        # The constructors refuse bad values: one error must not hide the others.
        try:
            recipients[name] = _create_recipient(alert, name, where)
        except MLScaleError as error:
            problems.append(error)
    raise_all(problems)
    return recipients


def _list_wanted(alert: DictConfig) -> Iterator[tuple[str, str]]:
    """Yield the name of each recipient's folder, and its address where there are several of a kind."""
    if alert.webhook is not None:
        yield "webhook", str(alert.webhook)
    if alert.command is not None:
        yield "command", ""
    if alert.mail.host is not None:
        yield "mail", ""
    urls = [alert.apprise] if isinstance(alert.apprise, str) else alert.apprise or []
    for number, url in enumerate(urls, 1):
        # By number: any part of the address may be secret.
        yield f"apprise-{number}", str(url)


def _create_recipient(alert: DictConfig, name: str, url: str) -> DocumentRecipient:
    # A command and apprise show no sign of having got the alert before they end: one time limit for both.
    whole_s = alert.timeout_s + alert.answer_s
    if name == "webhook":
        return Webhook(url, alert.timeout_s, alert.tries, answer_s=alert.answer_s)
    if name == "command":
        return CommandNotifier(_split_command(alert.command), whole_s, "alert.command")
    if name == "mail":
        return _create_mail(alert)
    require_extra("notify", "apprise")
    return AppriseNotifier(url, whole_s, "alert.apprise")


def _split_command(command: object) -> list[str]:
    """Return the words of a command: a list, or a text that is split as a shell would, without being run by one."""
    if not isinstance(command, str):
        return [str(word) for word in command]  # type: ignore[attr-defined]  # a ListConfig
    try:
        return shlex.split(command)
    except ValueError as error:
        raise MLScaleError(
            "the command can't be split into words",
            where="alert.command",
            why=str(error).lower(),
            fix="alert.command=[notify-send,mlscale]",
        ) from error


def _create_mail(alert: DictConfig) -> MailNotifier:
    mail = alert.mail
    # Reported with the names of the keys, which the notifier does not know.
    missing = [f"alert.mail.{name}" for name in ("to", "sender") if not mail[name]]
    if missing:
        raise MLScaleError(
            f"a mail needs {' and '.join(missing)}",
            where=missing[0],
            fix="alert.mail.to=[me@example.org] alert.mail.sender=monitor@example.org",
        )
    to = [mail.to] if isinstance(mail.to, str) else [str(address) for address in mail.to]
    return MailNotifier(
        host=str(mail.host),
        to=to,
        sender=str(mail.sender),
        port=mail.port,
        security=mail.security,
        user=mail.user,
        password=mail.password,
        timeout_s=alert.timeout_s,
        where="alert.mail",
        answer_s=alert.answer_s,
    )
