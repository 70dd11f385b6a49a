"""The notice at the end of a run, sent by the launching process, which is alive even when a rank was killed."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from mlscale.assembly.build import build
from mlscale.culprit import summarize_error
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.runs.folder import RunFolder


def notify_run_end(cfg: DictConfig, run: RunFolder) -> None:
    """Let `callbacks.notify` report that `run`, which is sealed, has ended. An error here has no effect on the run."""
    node = (cfg.get("callbacks") or {}).get("notify")
    if not node:
        return
    try:
        build(node, "callbacks.notify").run_ended(run)
    # Any error: a notice must not change the result or the exit code of a finished run.
    except Exception as error:
        with contextlib.suppress(OSError):
            message = Masker.create_for_process().mask_text(summarize_error(error))
            print(f"warning   callbacks.notify sent nothing:  {message}", file=sys.stderr, flush=True)
