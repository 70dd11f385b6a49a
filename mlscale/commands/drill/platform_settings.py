"""Read the rules of the platform that a config's `launch` describes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.drill.platform_rules import PlatformRules, check_signal
from mlscale.errors import MLScaleError
from mlscale.launch.volume_paths import is_below, resolve_runs_dir

if TYPE_CHECKING:
    from omegaconf import DictConfig

PLATFORMS = ("slurm", "kubernetes", "skypilot", "torchrun")


def read_platform_rules(cfg: DictConfig) -> PlatformRules:
    """Return the rules of the platform.

    Raises:
        MLScaleError: `launch` is not one of the platforms that end jobs.
    """
    name = str((cfg.get("launch") or {}).get("scheduler", "local"))
    readers: dict[str, Callable[[DictConfig], PlatformRules]] = {
        "slurm": _read_slurm_rules,
        "kubernetes": _read_kubernetes_rules,
        "skypilot": _read_skypilot_rules,
        "torchrun": _read_torchrun_rules,
    }
    if name not in readers:
        raise MLScaleError(
            f"a drill needs a platform, and launch={name} ends no jobs",
            where="launch",
            why=f"these do: {', '.join(PLATFORMS)}",
            fix="launch=slurm",
        )
    return readers[name](cfg)


def _read_slurm_rules(cfg: DictConfig) -> PlatformRules:
    launch = cfg.launch
    return PlatformRules(
        name="slurm",
        signal_name=check_signal(str(launch.get("signal", "USR1"))),
        grace_s=float(launch.grace_s),
        grace_key="launch.grace_s={}",
        runs_dir=str(cfg.runs_dir),
        survives=not _is_local_folder(str(cfg.runs_dir), cfg.node_folders),
        lost_fix="runs_dir=<a folder that all nodes see>",
        variable_fix="export {}=…, in the shell that submits",
        # sbatch keeps the environment of the submission, and a requeued job has it again.
        passes_environment=True,
    )


def _read_torchrun_rules(cfg: DictConfig) -> PlatformRules:
    launch = cfg.launch
    return PlatformRules(
        name="torchrun",
        signal_name=check_signal(str(launch.signal)),
        grace_s=float(launch.grace_s),
        grace_key="torchrun --shutdown-timeout={0}, and launch.grace_s={0} for this drill",
        runs_dir=str(cfg.runs_dir),
        survives=not _is_local_folder(str(cfg.runs_dir), cfg.node_folders),
        lost_fix="runs_dir=<a folder that all nodes see>",
        variable_fix="export {}=…, in the shell that starts torchrun",
        passes_environment=True,
        # torchrun ends with 1 whatever its ranks end with: what starts it again decides.
        restarts_by_code=False,
    )


def _read_kubernetes_rules(cfg: DictConfig) -> PlatformRules:
    launch = cfg.launch
    # As the job file has it, so that both agree on what is lost.
    runs_dir = resolve_runs_dir(str(cfg.runs_dir), str(launch.volume_path))
    return PlatformRules(
        name="kubernetes",
        signal_name=check_signal(str(launch.signal)),
        grace_s=float(launch.grace_s),
        grace_key="launch.grace_s={}",
        runs_dir=runs_dir,
        survives=bool(launch.claim) and is_below(runs_dir, str(launch.volume_path)),
        lost_fix=_choose_volume_fix(launch.claim, "launch.claim=<PersistentVolumeClaim>", str(launch.volume_path)),
        variable_fix=f"'launch.variables=[{{0}}]', and kubectl create secret generic {launch.secret_name} "
        '--from-literal={0}="${0}"',
        passed=(*launch.variables, *launch.env),
    )


def _read_skypilot_rules(cfg: DictConfig) -> PlatformRules:
    launch = cfg.launch
    runs_dir = resolve_runs_dir(str(cfg.runs_dir), str(launch.volume_path))
    return PlatformRules(
        name="skypilot",
        signal_name=check_signal(str(launch.signal)),
        grace_s=float(launch.grace_s),
        grace_key="launch.grace_s={}",
        runs_dir=runs_dir,
        survives=bool(launch.bucket) and is_below(runs_dir, str(launch.volume_path)),
        lost_fix=_choose_volume_fix(launch.bucket, "launch.bucket=s3://<bucket>", str(launch.volume_path)),
        variable_fix="'launch.variables=[{0}]'",
        passed=(*launch.variables, *launch.env),
    )


def _choose_volume_fix(volume: object, setting: str, path: str) -> str:
    return f"runs_dir=runs, which is {path}/runs there" if volume else setting


def _is_local_folder(runs_dir: str, node_folders: Sequence[str]) -> bool:
    """Return True if each node has a folder of its own at this path."""
    folders = [str(folder) for folder in node_folders]
    # A job's TMPDIR is on its node, wherever it is.
    temporary = [tempfile.gettempdir()] if folders else []
    return any(is_below(str(Path(runs_dir).absolute()), folder) for folder in (*folders, *temporary))
