"""Live checks of trackers: a run and a version are sent to W&B's own server."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

from scripts.live_check.finding import Finding
from scripts.live_check.run_mlscale import CheckError, run_mlscale

_PROJECT = "mlscale-live-check"


def check_wandb(folder: Path, samples: int) -> list[Finding]:
    """Train with W&B as tracker and as mirror of the registry, and read both back by W&B's own client."""
    what = "W&B: a run and a version"
    client = f"wandb {version('wandb')}"
    if not (os.environ.get("WANDB_API_KEY") or Path("~/.netrc").expanduser().exists()):
        return [Finding(what, "not here", "no key: export WANDB_API_KEY=…, or wandb login")]
    import wandb

    words = ("+recipe=resnet", "trainer.max_epochs=1", "snapshot=false", f"runs_dir={folder}/runs")
    trackers = ("logger=wandb", f"logger.wandb.project={_PROJECT}", "logger.wandb.offline=false")
    try:
        result = run_mlscale(folder, *words, *trackers)
        run_mlscale(folder, "versions", "add", result["artifacts"]["run"], f"registry.root={folder}/registry")
        run_mlscale(folder, "versions", "sync", f"project={_PROJECT}", f"registry.root={folder}/registry")
    except CheckError as error:
        return [Finding(what, "failed", client, str(error))]
    sent = wandb.Api().runs(_PROJECT, order="-created_at")[0]
    rows = len(list(sent.scan_history()))
    return [
        Finding(
            what,
            "proven" if rows else "failed",
            f"{client}, {os.environ.get('WANDB_BASE_URL', 'wandb.ai')}",
            f"{rows} rows",
        )
    ]
