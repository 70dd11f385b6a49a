"""The registry in a folder, mirrored to W&B as artifacts with aliases. Whatever W&B fails to do, it stays whole."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

from mlscale.errors import MLScaleError
from mlscale.files import write_text
from mlscale.versions.disk_lock import writing
from mlscale.versions.local_registry import LocalRegistry
from mlscale.versions.mirror_outbox import Outbox
from mlscale.versions.wandb_send import FAILED, NO_KEY, NO_KEY_WHY, SENT

_PAUSE_SECONDS = 300.0  # after a failure nothing is sent unasked: every promotion would wait for a dead server again
_SEND = "import sys; from mlscale.versions.wandb_send import main; sys.exit(main(sys.argv[1:]))"
_WHY = 200  # characters of a reason
_NOT_PASSED = ("WANDB_SERVICE", "WANDB_RUN_ID", "WANDB_RUN_GROUP", "WANDB_RESUME", "WANDB_SWEEP_ID", "WANDB_NAME",
               "WANDB_NOTES", "WANDB_TAGS", "WANDB_JOB_TYPE", "WANDB_PROJECT")  # fmt: skip


@dataclass(frozen=True)
class Delivery:
    """What came of sending.

    Attributes:
        sent: what arrived now.
        waiting: what still waits.
        why: the reason, where something waits.
    """

    sent: tuple[str, ...]
    waiting: tuple[str, ...]
    why: str = ""


class WandbRegistry(LocalRegistry):
    """A local registry that sends its versions and aliases to W&B after each change, or says what waits.

    Everything is done here first, and read from here. A version is an artifact of the type `model`, known there as
    `mlscale-v7`, for W&B counts on its own; aliases have the same names.

    Args:
        root: the folder; made when something is published.
        project, entity: where to, as W&B has them; entity None is the key's default.
        offline: True sends nothing until asked to; None sends when there is an API key.
        timeout_s: seconds that sending may take after a change.
    """

    def __init__(
        self,
        root: str | Path = "registry",
        *,
        project: str = "mlscale",
        entity: str | None = None,
        offline: bool | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        super().__init__(root)
        self.outbox = Outbox(self.root)
        self._project, self._entity = project, entity
        self._offline, self._timeout_s = offline, timeout_s

    def sync(self, timeout_s: float | None = None) -> Delivery:
        """Send all that waits; what the registry held before it was mirrored, too.

        Args:
            timeout_s: seconds that it may take; None: as long as it takes.

        Raises:
            MLScaleError: the registry is mirrored to another place.
        """
        with writing(self.root):
            self.outbox.begin(self._project, self._entity)
        before = self.waiting()
        if not before:
            return Delivery((), ())
        code, why = _in_a_process(self.root, timeout_s)
        self._remember(code == FAILED, why)
        after = self.waiting()
        return Delivery(tuple(item for item in before if item not in after), tuple(after), why if after else "")

    def waiting(self) -> list[str]:
        """What W&B has not got: `resnet:v7`, `aliases of resnet`."""
        return [item for model in self.outbox.waiting() for item in str(model).split(", ")]

    def _after_a_change(self) -> None:
        try:
            with writing(self.root):
                self.outbox.begin(self._project, self._entity)
            why = self._not_now()
            done = Delivery((), tuple(self.waiting()), why) if why else self.sync(self._timeout_s)
        except MLScaleError as error:
            _say(f"W&B: not mirrored: {error.what} ({error.fix})")
            return
        if done.sent:
            _say(f"W&B: sent {', '.join(done.sent)}")
        if done.waiting:
            _say(
                f"W&B: {_counted(done.waiting)} ({done.why}); to send: mlscale versions sync registry.root={self.root}"
            )

    def _not_now(self) -> str:
        """Why nothing is to be sent unasked; empty where it is."""
        if self._offline or os.environ.get("WANDB_MODE", "online") != "online":
            return "offline"
        if not _may_have_key():
            return NO_KEY_WHY
        with contextlib.suppress(OSError):
            failed = self._failure.stat().st_mtime
            if time.time() - failed < _PAUSE_SECONDS:
                return f"{self._failure.read_text(encoding='utf-8')}, {time.time() - failed:.0f} s ago"
        return ""

    def _remember(self, failed: bool, why: str) -> None:
        if failed:
            write_text(self._failure, why)
        else:
            self._failure.unlink(missing_ok=True)

    @property
    def _failure(self) -> Path:
        return self.outbox.folder / "failed"


def opened(root: str | Path) -> LocalRegistry:
    """The registry in a folder, with the mirror that it has been given."""
    place = Outbox(Path(root)).place
    return WandbRegistry(root, project=place.project, entity=place.entity) if place else LocalRegistry(root)


def _may_have_key() -> bool:
    """Whether W&B may find a key where it looks for one; quicker than its client, which takes seconds to say no."""
    named = any(name in os.environ for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"))
    netrc = (os.environ.get("NETRC", "~/.netrc"), "~/_netrc", "~/.config/wandb/settings")
    return named or any(Path(place).expanduser().is_file() for place in netrc)


def _in_a_process(root: Path, seconds: float | None) -> tuple[int, str]:
    """Send from a process of its own: its exit code, and why it did not send all."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:  # the client's caches and logs
        kept = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED}
        places = dict.fromkeys(("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"), scratch)
        said = Path(scratch, "stderr")  # not a pipe: W&B's own process would hold it open a while longer
        with said.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-c", _SEND, str(root)],
                env={**kept, **places, "WANDB_MODE": "online"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C is for this process, which ends that one
            )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return FAILED, f"it did not take all within {seconds:.0f} s"
        finally:
            process.kill()  # W&B's own process ends with it
            process.wait()
        lines = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    why = shorten(lines[-1], _WHY, placeholder=" …") if lines else f"the process that sends ended with {code}"
    return (code, why) if code in (SENT, NO_KEY) else (FAILED, why)


def _counted(waiting: tuple[str, ...]) -> str:
    shown = ", ".join(waiting[:3]) + (f" and {len(waiting) - 3} more" if len(waiting) > 3 else "")
    return f"{shown} {'wait' if len(waiting) > 1 or waiting[0].startswith('aliases') else 'waits'}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
