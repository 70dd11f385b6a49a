"""Notifies a user's program, which gets the document as JSON on its standard input. No shell."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlscale.errors import MLScaleError
from mlscale.notify.delivery import DeliveryResult
from mlscale.notify.document_text import encode_document


@dataclass(frozen=True)
class CommandNotifier:
    """A program to run.

    Attributes:
        words: a program and its arguments.
        timeout_s: seconds that it may take; then it is killed with all processes that it started.
        where: the key path of this setting, for messages.
    """

    words: Sequence[str]
    timeout_s: float = 10.0
    where: str = "command"

    def __post_init__(self) -> None:
        if isinstance(self.words, str) or not self.words or not all(isinstance(word, str) for word in self.words):
            raise MLScaleError(
                "the command is not a list of words",
                where=self.where,
                why="it is a program and its arguments; no shell reads them",
                fix=f"{self.where}=[notify-send,mlscale]",
            )

    @property
    def label(self) -> str:
        """The recipient, for messages. Its arguments may hold a secret."""
        return f"the command {Path(self.words[0]).name}"

    def send_document(self, document: Mapping[str, Any]) -> DeliveryResult:
        """Run the program once; the document has arrived if the exit code is 0."""
        try:
            # The document is on standard input, so nothing of it can become an argument or a shell command.
            process = subprocess.Popen(
                list(self.words),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # A group of its own, so that all that the program has started can be killed with it.
                start_new_session=True,
            )
        except OSError as error:
            return DeliveryResult(False, False, error.strerror or type(error).__name__)
        try:
            process.communicate(encode_document(document), timeout=self.timeout_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return DeliveryResult(False, True, f"no end within {self.timeout_s:g} s", True)
        # A program that has ended is not run again: it may have had its effect.
        return DeliveryResult(
            process.returncode == 0, False, f"it ended with {process.returncode}" if process.returncode else ""
        )
