"""Read the rules of the platform that the settings of `launch` describe."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlscale.drill.platform_rules import PlatformRules, check_signal
from mlscale.errors import MLScaleError
from mlscale.launch.cloud import CloudSettings, is_below, resolve_runs_dir
from mlscale.launch.kubernetes import KubernetesSettings
from mlscale.launch.skypilot import SkyPilotSettings

PLATFORMS = ("slurm", "kubernetes", "skypilot", "torchrun")
_VOLUME_SETTINGS: Mapping[str, type[CloudSettings]] = {"kubernetes": KubernetesSettings, "skypilot": SkyPilotSettings}


def read_platform_rules(launch: Mapping[str, Any], runs_dir: str, node_folders: Sequence[str]) -> PlatformRules:
    """Return the rules of the platform that the settings of `launch` describe.

    Args:
        launch: the values of the group `launch`.
        runs_dir: `runs_dir`.
        node_folders: folders of which each node has its own.

    Raises:
        MLScaleError: it is not one of the platforms that end jobs.
    """
    name = str(launch.get("scheduler", "local"))
    if name not in PLATFORMS:
        raise MLScaleError(
            f"a drill needs a platform, and launch={name} ends no jobs",
            where="launch",
            why=f"these do: {', '.join(PLATFORMS)}",
            fix="launch=slurm",
        )
    if name in _VOLUME_SETTINGS:
        return _read_volume_rules(name, launch, runs_dir)
    return _read_shared_folder_rules(name, launch, runs_dir, node_folders)


def _read_shared_folder_rules(
    name: str, launch: Mapping[str, Any], runs_dir: str, node_folders: Sequence[str]
) -> PlatformRules:
    is_torchrun = name == "torchrun"
    key = "torchrun --shutdown-timeout={0}, and launch.grace_s={0} for this drill"
    return PlatformRules(
        name=name,
        signal_name=check_signal(str(launch.get("signal", "USR1"))),
        grace_s=float(launch["grace_s"]),
        grace_key=key if is_torchrun else "launch.grace_s={}",
        runs_dir=runs_dir,
        survives=not _is_local_folder(runs_dir, node_folders),
        lost_fix="runs_dir=<a folder that all nodes see>",
        variable_fix="export {}=…, in the shell that " + ("starts torchrun" if is_torchrun else "submits"),
        # sbatch keeps the environment of the submission, and a requeued job has it again; so does torchrun's shell.
        passes_environment=True,
        # torchrun ends with 1 whatever its ranks end with: what starts it again decides.
        restarts_by_code=not is_torchrun,
    )


def _read_volume_rules(name: str, launch: Mapping[str, Any], runs_dir: str) -> PlatformRules:
    kind, path = _VOLUME_SETTINGS[name], str(launch["volume_path"])
    volume = launch[kind.volume_key]
    # As the job file has it, so that both agree on what is lost.
    on_node = resolve_runs_dir(runs_dir, path)
    creation = f', and kubectl create secret generic {launch.get("secret_name")} --from-literal={{0}}="${{0}}"'
    return PlatformRules(
        name=name,
        signal_name=check_signal(str(launch["signal"])),
        grace_s=float(launch["grace_s"]),
        grace_key="launch.grace_s={}",
        runs_dir=on_node,
        survives=bool(volume) and is_below(on_node, path),
        lost_fix=f"runs_dir=runs, which is {path}/runs there" if volume else kind.volume_fix,
        variable_fix="'launch.variables=[{0}]'" + (creation if name == "kubernetes" else ""),
        passed=(*launch["variables"], *launch["env"]),
    )


def _is_local_folder(runs_dir: str, node_folders: Sequence[str]) -> bool:
    """Return True if each node has a folder of its own at this path."""
    # A job's TMPDIR is on its node, wherever it is.
    temporary = [tempfile.gettempdir()] if node_folders else []
    return any(is_below(str(Path(runs_dir).absolute()), folder) for folder in (*node_folders, *temporary))
