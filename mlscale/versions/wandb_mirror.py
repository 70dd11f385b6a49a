"""Mirror the registry in a folder to W&B as artifacts with aliases. A failure of W&B never affects the registry."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

from mlscale.atomic_files import report_disk_errors
from mlscale.errors import MLScaleError
from mlscale.versions.local_registry import LocalRegistry
from mlscale.versions.mirror_outbox import MirrorOutbox
from mlscale.versions.wandb_send import CORRUPT, FAILED, NO_KEY, NO_KEY_WHY, SENT

_SEND = "import sys; from mlscale.versions.wandb_send import main; sys.exit(main(sys.argv[1:]))"
_WHY = 200  # characters of a reason
# These are for the user's own W&B run; the mirror has a run of its own.
_NOT_PASSED = ("WANDB_SERVICE", "WANDB_RUN_ID", "WANDB_RUN_GROUP", "WANDB_RESUME", "WANDB_SWEEP_ID", "WANDB_NAME",
               "WANDB_NOTES", "WANDB_TAGS", "WANDB_JOB_TYPE", "WANDB_PROJECT")  # fmt: skip


@dataclass(frozen=True)
class Delivery:
    """The result of sending.

    Attributes:
        sent: the items that arrived now.
        waiting: the items that are still to be sent.
        why: the reason, if some are still to be sent.
    """

    sent: tuple[str, ...]
    waiting: tuple[str, ...]
    why: str = ""


class WandbRegistry(LocalRegistry):
    """A local registry that sends its versions and aliases to W&B after each change, or prints what is left to send.

    Every change is made locally first, and reads are local. A version is an artifact of the type `model` with the alias
    `mlscale-v7`, for W&B has its own numbers; aliases have the same names.

    Args:
        root: the folder; created when something is published.
        project, entity: names in W&B; entity None is the default of the API key.
        offline: True sends nothing before `sync_mirror`; None sends when there is an API key.
        timeout_s: the most seconds for sending after a change.
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
        self.outbox = MirrorOutbox(self.root)
        self._project, self._entity = project, entity
        self._offline, self._timeout_s = offline, timeout_s

    def sync_mirror(self, timeout_s: float | None = None) -> Delivery:
        """Send all that has not been sent, versions from before the start of mirroring included.

        Args:
            timeout_s: the most seconds that it may take; None for no limit.

        Raises:
            MLScaleError: the registry is mirrored to another project.
        """
        with report_disk_errors("registry.root"):
            self.outbox.start_mirroring(self._project, self._entity)
            before = self.list_pending_names()
            if not before:
                return Delivery((), ())
        code, why = _send_in_subprocess(self.root, timeout_s)
        with report_disk_errors("registry.root"):
            # Without a key no attempt was made, and a corrupt version holds up no other one.
            if code == FAILED:
                self.outbox.record_failure(why)
            else:
                self.outbox.clear_failure()
        # Computed from the receipts, not from the exit code: a process that failed may have sent some of it.
        after = self.list_pending_names()
        return Delivery(tuple(item for item in before if item not in after), tuple(after), why if after else "")

    def list_pending_names(self) -> list[str]:
        """Return the items that are still to be sent, such as `resnet:v7` and `aliases of resnet`."""
        return [str(item) for item in self.outbox.list_pending()]

    def _mirror_change(self) -> None:
        try:
            with report_disk_errors("registry.root"):
                self.outbox.start_mirroring(self._project, self._entity)
            why = self._explain_delay()
            done = Delivery((), tuple(self.list_pending_names()), why) if why else self.sync_mirror(self._timeout_s)
        except MLScaleError as error:
            _print_line(f"W&B: not mirrored: {error.what} ({error.fix})")
            return
        if done.sent:
            _print_line(f"W&B: sent {', '.join(done.sent)}")
        if done.waiting:
            _print_line(
                f"W&B: {_format_waiting(done.waiting)} ({done.why}); "
                f"to send: mlscale versions sync registry.root={self.root}"
            )

    def _explain_delay(self) -> str:
        """Return why nothing is to be sent automatically; empty where it may be sent."""
        if self._offline or os.environ.get("WANDB_MODE", "online") != "online":
            return "offline"
        if not _has_key_source():
            return NO_KEY_WHY
        return self.outbox.explain_pause()


def open_registry(root: str | Path) -> LocalRegistry:
    """Return the registry in a folder, with its mirror if it has one."""
    mirror = MirrorOutbox(Path(root)).mirror_project
    return WandbRegistry(root, project=mirror.project, entity=mirror.entity) if mirror else LocalRegistry(root)


def _has_key_source() -> bool:
    """Return True if W&B may find an API key; faster than its client, which takes seconds to find none."""
    named = any(name in os.environ for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"))
    netrc = (os.environ.get("NETRC", "~/.netrc"), "~/_netrc", "~/.config/wandb/settings")
    return named or any(Path(path).expanduser().is_file() for path in netrc)


def _send_in_subprocess(root: Path, seconds: float | None) -> tuple[int, str]:
    """Send in a separate process; return its exit code, and why it did not send all."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:  # the client's caches and logs
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED}
        folders = dict.fromkeys(("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"), scratch)
        stderr_path = Path(scratch, "stderr")  # not a pipe: W&B's own process would hold it open a while longer
        with stderr_path.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-c", _SEND, str(root)],
                env={**environment, **folders, "WANDB_MODE": "online"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C reaches only this process, which then ends that one
            )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return FAILED, f"it did not take all within {seconds:.0f} s"
        finally:
            process.kill()  # W&B's own process ends with it
            process.wait()
        lines = stderr_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    why = shorten(lines[-1], _WHY, placeholder=" …") if lines else f"the process that sends ended with {code}"
    return (code, why) if code in (SENT, NO_KEY, CORRUPT) else (FAILED, why)


def _format_waiting(waiting: tuple[str, ...]) -> str:
    shown = ", ".join(waiting[:3]) + (f" and {len(waiting) - 3} more" if len(waiting) > 3 else "")
    return f"{shown} {'wait' if len(waiting) > 1 or waiting[0].startswith('aliases') else 'waits'}"


def _print_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
