"""Kill the run that a configuration describes, several times, and check that it resumes bitwise identical."""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mlscale.assembly.first_weights import resolve_first_weights
from mlscale.commands.drill.played_job import build_start
from mlscale.commands.rehearsal_config import compose_rehearsal_config, freeze_rehearsal_config, read_process_count
from mlscale.errors import Exit, MLScaleError
from mlscale.launch.start_notices import print_masked_lines
from mlscale.report import Result, format_duration
from mlscale.runs.folder import RunFolder
from mlscale.runs.host.processes import raise_on_terminate
from mlscale.secrets.mask import Masker
from mlscale.verify_resume import resume_verdict as verdict
from mlscale.verify_resume import traces
from mlscale.verify_resume.killed_run import (
    CommandStarter,
    KillPoint,
    choose_kill_points,
    count_optimizer_steps,
)
from mlscale.verify_resume.resume_verdict import (
    DeterminismCost,
    KillTrial,
    describe_determinism,
    find_nondeterministic_operations,
)
from mlscale.verify_resume.traces import TraceLine

if TYPE_CHECKING:
    from omegaconf import DictConfig

_OWN_KEYS = ("ref", "trust", "kills", "kill_seed", "determinism", "keep")
_MAX_ATTEMPTS = 20  # of a run that asks to be run again


def run(cfg: DictConfig) -> Result:
    """Train once without interruption; then kill, resume and compare, until a run differs or all have resumed.

    Raises:
        MLScaleError: the run fails without any kill, with its exit code; or it is too short to be killed.
    """
    if _get_scheduler(cfg) == "slurm":
        typed = [word for word in cfg.derived.overrides or [] if word.partition("=")[0] not in _OWN_KEYS[2:]]
        raise MLScaleError(
            "verify-resume submits no jobs of SLURM",
            where="launch=slurm",
            why="drill plays on this machine what SLURM does to a job: its signal, the kill, a requeue on another node",
            fix=shlex.join(["mlscale", "drill", *typed]),
        )
    if cfg.kills < 1:
        raise MLScaleError(f"kills is {cfg.kills}", where="kills", fix="kills=3")
    began = time.monotonic()
    masker = Masker.create_for_run(cfg)
    # SIGTERM raises, so that the scratch folder is removed.
    with raise_on_terminate(), _provide_verification_folder(cfg) as folder:
        initial = resolve_first_weights(cfg)
        check = _ResumeVerification(
            _compose_traced_config(cfg, folder, masker),
            folder,
            masker,
            _create_starter(cfg, folder),
            initial.build_init_document() if initial else None,
        )
        check.print_lines(*([f"scratch   {folder}"] if cfg.keep else []))
        reference = check.train_reference()
        points = choose_kill_points(reference[0], cfg.kills, cfg.kill_seed)
        check.print_lines(f"kills     at {'; '.join(map(str, points))} (kill_seed={cfg.kill_seed})")
        # One difference is the answer: further kills would only take time.
        tried = [check.kill_and_resume(point, reference) for point in check.iterate_until_difference(points)]
        sentence = check.conclude_verdict(tried, reference)
        cost = check.measure_determinism() if check.wants_determinism(cfg.determinism) else None
        if cost and cost.operations:
            sentence += f"\n  without a deterministic kernel: {', '.join(cost.operations)}"
        metrics = {
            "kills": len(tried),
            "identical": sum(attempt.is_identical for attempt in tried),
            "steps": count_optimizer_steps(reference[0]),
            "trace_bytes": sum(path.stat().st_size for path in (check.first.path / "trace").glob("rank*")),
            **({"deterministic_slowdown": fmean(cost.slowdowns)} if cost and cost.slowdowns else {}),
            "time_s": time.monotonic() - began,
        }
    ok = all(attempt.is_identical for attempt in tried)
    artifacts = {"scratch": str(folder)} if cfg.keep else {}
    return Result("verify-resume", ok, sentence, metrics, artifacts, list(cfg.derived.overrides or []))


@dataclass
class _ResumeVerification:
    """The runs of one verification, all of the same frozen config."""

    config_yaml: str
    folder: Path
    masker: Masker
    starter: CommandStarter
    init: Mapping[str, Any] | None = None
    runs: list[RunFolder] = field(default_factory=list)
    differs: bool = False

    @property
    def first(self) -> RunFolder:
        return self.runs[0]

    def print_lines(self, *lines: str) -> None:
        print_masked_lines(lines, self.masker)

    def create_run(self, name: str, config_yaml: str | None = None) -> RunFolder:
        made = RunFolder.create(
            self.folder,
            name,
            command="train",
            config_yaml=config_yaml or self.config_yaml,
            init=self.init,
            masker=self.masker,
        )
        self.runs.append(made)
        return made

    def train_reference(self) -> list[list[TraceLine]]:
        """Return the trace of a run without interruption."""
        made = self.create_run("reference")
        ended = self.starter.train(made.path)
        if ended.code != 0:
            raise _make_reference_error(ended.code or Exit.BUG, ended.output)
        lines = traces.read_traces(made.path / "trace")
        steps = count_optimizer_steps(lines[0]) if lines else 0
        if steps < 2:
            raise MLScaleError(
                f"the run takes {steps} optimizer step{'s' * (steps != 1)}: there is nothing between two steps to kill",
                where="trainer",
                why="a longer run has some; debug=fast has one step",
                fix="trainer.max_epochs=2\ntrainer.limit_train_batches=4",
            )
        many = f", {len(lines)} ranks" if len(lines) > 1 else ""
        self.print_lines(f"reference {steps:,} steps in {format_duration(ended.seconds)}{many}")
        return lines

    def iterate_until_difference(self, points: list[KillPoint]) -> Iterator[KillPoint]:
        for point in points:
            if not self.differs:
                yield point

    def kill_and_resume(self, point: KillPoint, reference: list[list[TraceLine]]) -> KillTrial:
        """Kill a new run, resume it until it is done, and compare."""
        made = self.create_run(f"killed-{len(self.runs)}")
        ended = self.starter.train(made.path, point)
        resumed = ended.code is None
        if ended.code == 0 and point.phase != "step":  # it saves or validates by the clock, and did not this time
            return self.kill_and_resume(KillPoint("step", point.step), reference)
        for _ in range(_MAX_ATTEMPTS):
            # None: it was killed, as ordered. SAVED: it has to be run again (`trainer.max_time`).
            if ended.code not in (None, Exit.SAVED):
                break
            ended = self.starter.train(made.path)
        lines = traces.read_traces(made.path / "trace")
        step = traces.find_resumed_step(lines[0], 2) if lines else None
        failed = ended.output if ended.code else ""
        path = made.path / "results/fit.json"
        fit = json.loads(path.read_text()) if path.is_file() else {}
        other = bool(fit.get("other_batches"))
        tried = KillTrial(point, step, traces.compare_traces(reference, lines), failed, resumed, other)
        self.differs = not tried.is_identical
        how = "identical" if tried.is_identical else "an error" if failed else "different"
        begun = f"resumed from step {step:,}" if step else "no checkpoint was there, started over"
        begun = "" if step is None else f"{begun}: "
        self.print_lines(f"killed    at {point}; {begun}{how}", *_describe_replay(fit, lines))
        return tried

    def wants_determinism(self, setting: bool | str) -> bool:
        """Return whether kernels are looked at: on request, or by default where they may differ: not on a CPU."""
        return bool(self.first.derived.get("accelerator") != "cpu") if setting == "auto" else bool(setting)

    def measure_determinism(self) -> DeterminismCost | None:
        """Train with deterministic kernels, without, and with them again; print the finding.

        Returns:
            what it showed; None where one of these runs failed.
        """
        rates: list[float | None] = []
        output = ""
        # The run without between the two with them: a machine that gets busier changes both pairs in opposite ways.
        for setting in ("warn", False, "warn"):
            config = OmegaConf.create(self.config_yaml)
            # `warn`: an operation without a deterministic kernel is named, and the run continues.
            config.trainer.deterministic = setting
            made = self.create_run("kernels", OmegaConf.to_yaml(config))
            ended = self.starter.train(made.path)
            if ended.code != 0:
                reason = ended.output.splitlines()[0] if ended.output else f"exit code {ended.code}"
                self.print_lines(f"kernels   not measured: {reason}")
                return None
            rates.append(_get_throughput(made))
            output += self.starter.read_output(made.path)
        before, plain, after = rates
        slowdowns = tuple(plain / rate for rate in (before, after) if plain and rate)
        cost = DeterminismCost(find_nondeterministic_operations(output), slowdowns)
        self.print_lines(*describe_determinism(cost))
        return cost

    def conclude_verdict(self, tried: list[KillTrial], reference: list[list[TraceLine]]) -> str:
        """Return the verdict as a sentence. If a run differs, one more without a kill shows whether kills are the
        cause.
        """
        last = tried[-1]
        if last.is_identical:
            return verdict.describe_identical_runs(tried)
        if last.failed:
            return verdict.describe_failed_run(last)
        if last.comparison.difference is None:
            return verdict.describe_different_run(last)
        if last.differs_before_the_kill:
            return verdict.describe_unrepeatable_run(last.comparison)
        self.print_lines("again     without a kill: does the run repeat at all?")
        made = self.create_run("again")
        ended = self.starter.train(made.path)
        again = traces.compare_traces(reference, traces.read_traces(made.path / "trace"))
        itself = ended.code == 0 and again.difference is not None
        return verdict.describe_unrepeatable_run(again) if itself else verdict.describe_different_run(last)


def _get_throughput(run: RunFolder) -> float | None:
    value = (run.manifest or {}).get("metrics", {}).get("throughput_samples_per_s")
    return float(value) if value else None


@contextmanager
def _provide_verification_folder(cfg: DictConfig) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="mlscale-verify-resume-"))
    try:
        yield folder
    finally:
        if not cfg.keep:
            shutil.rmtree(folder, ignore_errors=True)


def _make_reference_error(code: int, output: str) -> MLScaleError:
    what, _, rest = output.partition("\n")
    # The user's code may end the process with any number.
    known = code in [int(exit) for exit in Exit]
    return MLScaleError(
        f"the run fails without any kill: {what}" + (f"\n{rest}" if rest else ""),
        exit=Exit(code) if known else Exit.BUG,
    )


def _describe_replay(fit: Mapping[str, Any], lines: list[list[TraceLine]]) -> list[str]:
    """Return a line if a loader without a state of its own loaded batches again."""
    if not (count := fit.get("replayed", 0)):
        return []
    began = [float(line.content["seconds"]) for line in lines[0] if line.kind in traces.STARTS and line.attempt > 1]
    took = f" in {format_duration(began[0])}" if began else ""
    return [f"replayed  {count:,} batch{'es' * (count != 1)}{took}: the loader has no place of its own (state_dict)"]


def _compose_traced_config(cfg: DictConfig, folder: Path, masker: Masker) -> str:
    """Return the config of a training run in `folder`, with a trace and without trackers that others see, as YAML.

    Raises:
        MLScaleError: what `launch` names can't start it.
    """
    plain = compose_rehearsal_config(cfg, _OWN_KEYS, masker)
    _replace_launch(plain)
    plain.runs_dir = str(folder)
    return freeze_rehearsal_config(plain, "mlscale.verify_resume.trace.Trace", "${derived.run_dir}/trace")


def _get_scheduler(cfg: DictConfig) -> str | None:
    """Return what `launch` names to start the ranks; None where mlscale does."""
    name = (cfg.get("launch") or {}).get("scheduler")
    return str(name) if name else None


def _replace_launch(cfg: DictConfig) -> None:
    """Make the frozen config one of ranks that are started from outside.

    Raises:
        MLScaleError: the number of processes is not given, or nothing is to be started.
    """
    name = _get_scheduler(cfg)
    if name is None:
        return
    if cfg.launch.get("dry_run"):
        raise MLScaleError(
            "verify-resume starts jobs, which launch.dry_run forbids",
            where="launch.dry_run",
            fix="launch.dry_run=false",
        )
    read_process_count(cfg, f"launch={name}")
    # Its processes are the job itself, which must not be submitted again.
    cfg.launch = {"max_restarts": 0, "timeout_s": cfg.launch.timeout_s}


def _create_starter(cfg: DictConfig, root: Path) -> CommandStarter:
    """Return what starts and kills the trainings in `root`."""
    name = _get_scheduler(cfg)
    if name is None:
        return CommandStarter(root)

    def build_command(words: Sequence[str]) -> tuple[list[str], Mapping[str, str]]:
        start = build_start(name, words, int(cfg.trainer.devices), 0, {})
        return start.commands[0], start.variables[0]

    return CommandStarter(root, build_command)
