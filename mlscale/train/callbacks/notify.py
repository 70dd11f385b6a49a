"""Notifications: a run has finished, failed, diverged, was stopped, or hangs."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args

from pytorch_lightning import Callback, LightningModule, Trainer
from tqdm import tqdm

from mlscale.contracts import get_format_tag
from mlscale.errors import MLScaleError
from mlscale.export.required_extras import require_extra
from mlscale.notify.apprise_notifier import AppriseNotifier
from mlscale.notify.command_notifier import CommandNotifier
from mlscale.notify.delivery import DeliveryResult
from mlscale.notify.mail_notifier import MailNotifier
from mlscale.notify.webhook import Webhook
from mlscale.runs.folder import RunFolder
from mlscale.runs.identity import get_current_time
from mlscale.secrets.mask import Masker
from mlscale.train.callbacks.stall import StallReport

Event = Literal["finished", "failed", "diverged", "stopped", "hung"]
# From the statuses of a run's manifest to the events that users choose from.
_EVENTS: Mapping[str, Event] = {
    "done": "finished", "failed": "failed", "diverged": "diverged", "interrupted": "stopped",
}  # fmt: skip


class Notify(Callback):
    """A callback that sends notices by webhook, command, mail and apprise, of one document: `contracts/notice.json`.

    The process that launched a run reports its end, so that a killed rank is reported, too: it calls `run_ended` once
    the run folder is sealed. `callbacks.stall` detects a run that hangs. A notice that does not arrive is a line on
    standard error, and changes nothing else; the time for all tries is bounded.

    Args:
        when: which of finished, failed, diverged, stopped and hung are sent.
        webhook: gets a JSON POST; http or https.
        command: a program and its arguments, which gets the JSON on its standard input.
        mail: arguments of `mlscale.notify.mail_notifier.MailNotifier`: host, to, sender, and how to log in.
        apprise: addresses of services of the library apprise, such as `slack://…`; it comes with the extra 'notify'.
        timeout_s: seconds that each of them may take for one try.
        tries: of a webhook.

    Raises:
        MLScaleError: a recipient is missing, a setting is not valid, or apprise is not installed (exit code 5).
    """

    def __init__(
        self,
        when: Sequence[Event] = get_args(Event),
        webhook: str | None = None,
        command: Sequence[str] | None = None,
        mail: Mapping[str, Any] | None = None,
        timeout_s: float = 10.0,
        tries: int = 3,
        apprise: Sequence[str] | None = None,
    ) -> None:
        if unknown := [event for event in when if event not in get_args(Event)]:
            raise _build_notify_error(
                f"'{unknown[0]}' is none of {', '.join(get_args(Event))}", "when", "when=[failed,hung]"
            )
        # The configuration always has the node `mail`; it is off without a host.
        mail = mail if mail and mail.get("host") is not None else None
        urls = [apprise] if isinstance(apprise, str) else apprise or []
        if webhook is None and command is None and mail is None and not urls:
            raise _build_notify_error("it has no recipient", "webhook", "webhook='${oc.env:MY_WEBHOOK}'")
        self.when = tuple(when)
        where = "callbacks.notify"
        self._webhook = Webhook(webhook, timeout_s, tries, f"{where}.webhook") if webhook is not None else None
        self._command = CommandNotifier(command, timeout_s, f"{where}.command") if command is not None else None
        self._mail = _create_mail(mail, timeout_s, f"{where}.mail") if mail else None
        if urls:
            require_extra("notify", "apprise")
        self._services = [AppriseNotifier(url, timeout_s, f"{where}.apprise") for url in urls]
        self._folder: Path | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._folder = Path(trainer.default_root_dir)

    def on_stall(self, report: StallReport) -> None:
        """Send the notice that the run hangs."""
        if self._folder is not None and "hung" in self.when:
            self._send_notice(RunFolder.open(self._folder), "hung", report.sentence, {})

    def run_ended(self, run: RunFolder) -> None:
        """Send the notice of a run's end, once its folder is sealed."""
        manifest: Mapping[str, Any] = run.manifest or {}
        event = _EVENTS.get(str(manifest.get("status")))
        if event is not None and event in self.when:
            self._send_notice(run, event, str(manifest["sentence"]), manifest.get("metrics", {}))

    def _send_notice(self, run: RunFolder, event: Event, sentence: str, metrics: Mapping[str, Any]) -> None:
        # The document leaves the machine, and an error's sentence may quote a secret setting.
        document = Masker.create_for_process().mask_tree(
            {
                "format": get_format_tag("notice"),
                "event": event,
                "run": run.id,
                "name": str(run.run["name"]),
                "sentence": sentence,
                "metrics": {name: value for name, value in metrics.items() if _is_number(value)},
                "host": socket.gethostname(),
                "folder": str(run.path),
                "time": get_current_time(),
            }
        )
        for who, sent in self._send_to_recipients(document):
            if not sent.arrived or sent.why:
                tqdm.write(f"warning   callbacks.notify: {who}: {sent.why}", file=sys.stderr)

    def _send_to_recipients(self, document: Mapping[str, Any]) -> list[tuple[str, DeliveryResult]]:
        deliveries = []
        if self._webhook is not None:
            deliveries.append((self._webhook.label, self._webhook.send_document(document)))
        if self._command is not None:
            deliveries.append(("the command", self._command.send_document(document)))
        if self._mail is not None:
            # The first line alone: a mail's header must not hold a line break.
            subject = f"{document['name']} {document['event']}: {document['sentence'].splitlines()[0]}"
            deliveries.append(
                (f"the mail server {self._mail.host}", self._mail.send_mail(subject, _format_mail_text(document)))
            )
        deliveries += [(service.label, service.send_document(document)) for service in self._services]
        return deliveries


def _format_mail_text(document: Mapping[str, Any]) -> str:
    """Return the document as plain text, for a mail."""
    lines = [document["sentence"], ""]
    lines += [f"{name}: {value:.6g}" for name, value in document["metrics"].items()]
    lines += ["", f"{document['folder']} on {document['host']}, {document['time']}"]
    return "\n".join(lines) + "\n"


def _is_number(value: object) -> bool:
    # A bool is an int in Python, and JSON has neither NaN nor infinity.
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _create_mail(given: Mapping[str, Any], timeout_s: float, where: str) -> MailNotifier:
    settings = {name: value for name, value in given.items() if value is not None}
    if missing := [name for name in ("to", "sender") if name not in settings]:
        raise _build_notify_error(
            f"a mail has no {missing[0]}", f"mail.{missing[0]}", f"mail.{missing[0]}=<an address>"
        )
    return MailNotifier(**settings, timeout_s=timeout_s, where=where)


def _build_notify_error(what: str, key: str, fix: str) -> MLScaleError:
    error = MLScaleError(f"callbacks.notify: {what}", where=f"callbacks.notify.{key}", fix=f"callbacks.notify.{fix}")
    error.unbuilt = True  # nothing has run yet
    return error
