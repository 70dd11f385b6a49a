"""End the run that a configuration describes as its platform does, start it again on another node, and report."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mlscale.assembly.first_weights import resolve_first_weights
from mlscale.commands.drill.played_job import AttemptOutcome, PlayedJob
from mlscale.commands.rehearsal_config import compose_rehearsal_config, freeze_rehearsal_config, read_process_count
from mlscale.errors import MLScaleError
from mlscale.launch.cloud import CloudSettings, is_below, resolve_runs_dir
from mlscale.launch.kubernetes import KubernetesSettings
from mlscale.launch.skypilot import SkyPilotSettings
from mlscale.launch.start_notices import print_masked_lines
from mlscale.report import ReportStep, Result
from mlscale.report.result import save_result_in
from mlscale.runs.folder import RunFolder
from mlscale.runs.host.processes import raise_on_terminate
from mlscale.secrets.config_secrets import list_required_variables, protect_config
from mlscale.secrets.mask import Masker
from mlscale.verify_resume.drill_findings import DrillFacts, DrillFinding, describe_drill, format_seconds, list_findings
from mlscale.verify_resume.platform_rules import JobEnding, PlatformRules, check_signal, choose_restart_size
from mlscale.verify_resume.step_records import find_other_batch, is_bitwise_identical

if TYPE_CHECKING:
    from omegaconf import DictConfig

_OWN_KEYS = (
    "ref", "trust",
    "stop_step", "steps_after", "restart_devices", "grace_limit_s", "start_limit_s", "node_folders", "report", "keep",
)  # fmt: skip
# The processes that the drill starts are the job itself, which must not be submitted again.
_LOCAL_LAUNCH = {"max_restarts": 0, "timeout_s": 600.0}
_STEPS = {"ended": ("grace", "exit"), "restarted": ("secret", "folder", "size", "restart"), "compared": ("order",)}


def run(cfg: DictConfig) -> Result:
    """Start the job, end it by the platform's rules, start it on another node, and compare with an uninterrupted run.

    Raises:
        MLScaleError: `launch` is not a platform, or the job fails before the platform ends it.
    """
    began = time.monotonic()
    launch: Any = OmegaConf.to_container(cfg.launch, resolve=True) if cfg.get("launch") else {}
    rules = read_platform_rules(launch, str(cfg.runs_dir), list(map(str, cfg.node_folders)))
    masker = Masker.create_for_run(cfg)
    # SIGTERM raises, so that the processes are ended and the scratch folder is removed.
    with raise_on_terminate(), _provide_scratch_folder(cfg.keep) as folder:
        initial = resolve_first_weights(cfg)
        job = _create_job(cfg, folder, initial.build_init_document() if initial else None, masker)
        played = PlayedJob(rules, folder, job.path, float(cfg.start_limit_s))
        facts = _Drill(cfg, rules, masker, played, _list_secret_variables(cfg)).play()
        findings = list_findings(rules, facts)
        artifacts = {"scratch": str(folder)} if cfg.keep else {}
    result = _build_drill_result(cfg, rules, facts, findings, time.monotonic() - began, artifacts)
    return save_result_in(result, Path(cfg.report), f"drill of {cfg.name} on {rules.name}") if cfg.report else result


@dataclass(frozen=True)
class _Drill:
    """One drill: the steps that it takes, and the lines that it prints."""

    cfg: DictConfig
    rules: PlatformRules
    masker: Masker
    job: PlayedJob
    secrets: tuple[str, ...]

    def play(self) -> DrillFacts:
        devices, batch = _read_sizes(self.cfg)
        wanted = self.cfg.restart_devices or choose_restart_size(devices, batch or 1)
        limit = float(self.cfg.grace_limit_s)
        starting = self.job.stop_while_starting(devices, limit)
        self._print_lines(f"started   and ended, {_describe_ending(self.rules, starting)}")
        first, ending = self.job.run_until_ended(devices, self.cfg.stop_step, limit)
        killed = first.records.last_step or 0
        self._print_lines(f"ended     at step {killed:,}, {_describe_ending(self.rules, ending)}")
        facts = DrillFacts(starting, ending, killed, None, devices, wanted, batch, hosts=(first.records.host, ""))
        facts, restarted = self._restart_until_begun(facts)
        if restarted is None or restarted.records.first_step is None:
            return facts
        records = restarted.records
        facts = replace(facts, resumed_step=records.first_step, hosts=(facts.hosts[0], records.host))
        size = _format_processes(facts.restart_devices if not facts.size_error else devices)
        self._print_lines(f"restarted on {records.host}, {size}: from step {records.first_step:,}")
        return self._compare_with_reference(facts, restarted)

    def _restart_until_begun(self, facts: DrillFacts) -> tuple[DrillFacts, AttemptOutcome | None]:
        """Start the job again. A fault is noted and repaired, so that those behind it are found, too."""
        supplied: dict[str, str] = {}
        devices = facts.restart_devices
        for number in range(3):
            last = facts.killed_step + int(self.cfg.steps_after)
            outcome = self.job.restart(f"restart-{number + 1}", devices, last, supplied)
            if outcome.code in (None, 0) and outcome.records.first_step is not None:
                return facts, outcome
            # Only where the start failed: a variable may have had no effect on it.
            missing = [name for name in self.secrets if name not in self._list_passed() and name not in supplied]
            if missing:
                facts = replace(facts, missing=missing)
                supplied = {name: os.environ[name] for name in missing}
                self._print_lines(f"restarted without {', '.join(missing)}: {_get_first_line(outcome.output)}")
            elif devices != facts.devices:
                facts, devices = replace(facts, size_error=outcome.output), facts.devices
                self._print_lines(
                    f"restarted on {_format_processes(facts.restart_devices)}: {_get_first_line(outcome.output)}"
                )
            else:
                return replace(facts, restart_error=outcome.output or "without a message"), None
        return facts, None

    def _list_passed(self) -> dict[str, str]:
        return self.rules.select_environment(os.environ)

    def _compare_with_reference(self, facts: DrillFacts, restarted: AttemptOutcome) -> DrillFacts:
        """Compare the steps of the restarted job with those of a run without an interruption."""
        last = restarted.records.last_step or 0
        # Last: a drill that has found a fault before it does not need it.
        reference = self.job.run_uninterrupted(facts.devices, last)
        self._print_lines(f"reference without an interruption: {reference.records.last_step or 0:,} steps")
        return replace(
            facts,
            other_batch=find_other_batch(reference.records, restarted.records),
            is_bitwise=is_bitwise_identical(reference.records, restarted.records),
        )

    def _print_lines(self, *lines: str) -> None:
        print_masked_lines(lines, self.masker)


def _read_sizes(cfg: DictConfig) -> tuple[int, int | None]:
    """Return the number of processes of a node, and the global batch; None for data that has none.

    Raises:
        MLScaleError: the number of processes is not a number.
    """
    devices = read_process_count(cfg, "a drill")
    batch = (cfg.get("data") or {}).get("batch_size")
    return devices, int(batch) if batch else None


def _describe_ending(rules: PlatformRules, ending: JobEnding) -> str:
    if ending.needed_s is None:
        return "by SIGKILL"
    needed = format_seconds(ending.needed_s)
    if ending.code is None:
        return f"by SIGKILL {rules.grace_s:g} s after SIG{rules.signal_name}; it would have needed {needed}"
    return f"by SIG{rules.signal_name}: exit code {ending.code} after {needed}"


def _format_processes(count: int) -> str:
    return f"{count} process{'es' * (count != 1)}"


def _get_first_line(text: str) -> str:
    return next(iter(text.splitlines()), "no message")


def _build_drill_result(
    cfg: DictConfig,
    rules: PlatformRules,
    facts: DrillFacts,
    findings: list[DrillFinding],
    seconds: float,
    artifacts: dict[str, str],
) -> Result:
    lost = facts.lost_steps
    metrics = {
        "lost_steps": facts.killed_step if lost is None else lost,
        "killed_step": facts.killed_step,
        **({} if facts.resumed_step is None else {"resumed_step": facts.resumed_step}),
        **({} if facts.ending.needed_s is None else {"needed_grace_s": facts.ending.needed_s}),
        "grace_s": rules.grace_s,
        "findings": len(findings),
        "time_s": seconds,
    }
    return Result(
        "drill",
        not findings,
        describe_drill(rules, facts, findings),
        metrics,
        artifacts,
        list(cfg.derived.overrides or []),
        steps=_build_drill_steps(rules, facts, findings),
        details={
            "platform": rules.name,
            "findings": [{"kind": item.kind, "text": item.text, "fix": item.fix} for item in findings],
            "bitwise": facts.is_bitwise,
            "hosts": list(facts.hosts),
        },
    )


@contextmanager
def _provide_scratch_folder(keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="mlscale-drill-"))
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _build_drill_steps(
    rules: PlatformRules, facts: DrillFacts, findings: Sequence[DrillFinding]
) -> tuple[ReportStep, ...]:
    """Return the numbered steps: ended, restarted, compared; each with its findings, or with what was seen."""
    seen = {
        "ended": f"after step {facts.killed_step:,}, on {facts.hosts[0] or 'a node'}, {facts.devices} processes",
        "restarted": f"on {facts.hosts[1] or 'another node'}, {facts.restart_devices} processes",
        "compared": "bitwise identical" if facts.is_bitwise else "the same global batches",
    }
    needed = facts.ending.needed_s
    values = {
        "ended": "" if needed is None else f"{format_seconds(needed)} of {rules.grace_s:g} s",
        "restarted": "" if facts.lost_steps is None else f"{facts.lost_steps:,} steps lost",
    }
    steps = []
    for title, kinds in _STEPS.items():
        faults = [finding for finding in findings if finding.kind in kinds]
        reached = title == "ended" or facts.resumed_step is not None or bool(faults)
        text = "; ".join(f"{finding.text}. Fix: {finding.fix}" for finding in faults) or seen[title]
        steps.append(ReportStep(title, text if reached else "", not faults if reached else None, values.get(title, "")))
    return tuple(steps)


def _create_job(cfg: DictConfig, folder: Path, init: Mapping[str, Any] | None, masker: Masker) -> RunFolder:
    """Create the run folder that each start of the job is like, in `folder`, with records in `<folder>/records`."""
    plain = compose_rehearsal_config(cfg, _OWN_KEYS, masker)
    plain.launch = _LOCAL_LAUNCH
    config_yaml = freeze_rehearsal_config(plain, "mlscale.verify_resume.step_recorder.StepRecorder", folder / "records")
    return RunFolder.create(
        folder / "submitted", cfg.name, command="train", config_yaml=config_yaml, init=init, masker=masker
    )


def _list_secret_variables(cfg: DictConfig) -> tuple[str, ...]:
    """Return the environment variables without which a run of this config fails, and that are set here."""
    return tuple(name for name in list_required_variables(protect_config(cfg)[0]) if name in os.environ)


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
