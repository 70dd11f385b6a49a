"""Kill the run that a configuration describes, several times, and check that it resumes bitwise identical."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mlscale.assembly.first_weights import initial_of
from mlscale.errors import Exit, MLScaleError
from mlscale.launch.start_notices import say
from mlscale.report import Result, duration
from mlscale.runs.folder import RunFolder
from mlscale.secrets.config_secrets import protect
from mlscale.secrets.mask import Masker
from mlscale.verify_resume import kill_points as kills
from mlscale.verify_resume import killed_run as drill
from mlscale.verify_resume import resume_verdict as verdict
from mlscale.verify_resume import traces
from mlscale.verify_resume.kill_points import Kill
from mlscale.verify_resume.resume_verdict import Tried
from mlscale.verify_resume.traces import Line

if TYPE_CHECKING:
    from omegaconf import DictConfig

_OWN_KEYS = ("kills", "kill_seed", "keep")
_CSV = "mlscale.train.loggers.csv"
_MOST_ATTEMPTS = 20  # of a run that asks to be run again


def run(cfg: DictConfig) -> Result:
    """Train once without interruption; then kill, resume and compare, until a run differs or all have resumed.

    Raises:
        MLScaleError: the run fails without any kill, with its exit code; or it is too short to be killed.
    """
    if cfg.kills < 1:
        raise MLScaleError(f"kills is {cfg.kills}", where="kills", fix="kills=3")
    began = time.monotonic()
    masker = Masker.of(cfg)
    # SIGTERM raises, so that the scratch folder is removed.
    with drill.raised_on_terminate(), _scratch(cfg.keep) as folder:
        initial = initial_of(cfg)
        check = _Check(_as_train(cfg, folder, masker), folder, masker, initial.document() if initial else None)
        check.say(*([f"scratch   {folder}"] if cfg.keep else []))
        reference = check.reference()
        points = kills.choose(reference[0], cfg.kills, cfg.kill_seed)
        check.say(f"kills     at {'; '.join(map(str, points))} (kill_seed={cfg.kill_seed})")
        # One difference is the answer: further kills would only take time.
        tried = [check.killed(point, reference) for point in check.until_one_differs(points)]
        sentence = check.verdict(tried, reference)
        metrics = {
            "kills": len(tried),
            "identical": sum(each.identical for each in tried),
            "steps": kills.steps_of(reference[0]),
            "trace_bytes": sum(path.stat().st_size for path in (check.first.path / "trace").glob("rank*")),
            "time_s": time.monotonic() - began,
        }
    ok = all(each.identical for each in tried)
    artifacts = {"scratch": str(folder)} if cfg.keep else {}
    return Result("verify-resume", ok, sentence, metrics, artifacts, list(cfg.derived.overrides or []))


@dataclass
class _Check:
    """The runs of one verification, all of the same frozen config."""

    config_yaml: str
    folder: Path
    masker: Masker
    init: Mapping[str, Any] | None = None
    runs: list[RunFolder] = field(default_factory=list)
    differs: bool = False

    @property
    def first(self) -> RunFolder:
        return self.runs[0]

    def say(self, *lines: str) -> None:
        say(lines, self.masker)

    def new(self, name: str) -> RunFolder:
        made = RunFolder.create(
            self.folder, name, verb="train", config_yaml=self.config_yaml, init=self.init, masker=self.masker
        )
        self.runs.append(made)
        return made

    def reference(self) -> list[list[Line]]:
        """Return the trace of a run without interruption."""
        made = self.new("reference")
        ended = drill.train(made.path, self.folder)
        if ended.code != 0:
            raise _failed(ended.code or Exit.BUG, ended.said)
        lines = traces.read(made.path / "trace")
        steps = kills.steps_of(lines[0]) if lines else 0
        if steps < 2:
            raise MLScaleError(
                f"the run takes {steps} optimizer step{'s' * (steps != 1)}: there is nothing between two steps to kill",
                where="trainer",
                fix="a longer run: trainer.max_epochs=2, or trainer.limit_train_batches=4 in place of debug=fast",
            )
        many = f", {len(lines)} ranks" if len(lines) > 1 else ""
        self.say(f"reference {steps:,} steps in {duration(ended.seconds)}{many}")
        return lines

    def until_one_differs(self, points: list[Kill]) -> Iterator[Kill]:
        for point in points:
            if not self.differs:
                yield point

    def killed(self, point: Kill, reference: list[list[Line]]) -> Tried:
        """Kill a new run, resume it until it is done, and compare."""
        made = self.new(f"killed-{len(self.runs)}")
        ended = drill.train(made.path, self.folder, point)
        resumed = ended.code is None
        if ended.code == 0 and point.place != "step":  # it saves or validates by the clock, and did not this time
            return self.killed(Kill("step", point.step), reference)
        for _ in range(_MOST_ATTEMPTS):
            # None: it was killed, as ordered. SAVED: it has to be run again (`trainer.max_time`).
            if ended.code not in (None, Exit.SAVED):
                break
            ended = drill.train(made.path, self.folder)
        lines = traces.read(made.path / "trace")
        step = traces.went_on_from(lines[0], 2) if lines else None
        failed = ended.said if ended.code else ""
        tried = Tried(point, step, traces.compare(reference, lines), failed, resumed)
        self.differs = not tried.identical
        how = "identical" if tried.identical else "an error" if failed else "different"
        begun = "" if step is None else f"went on from step {step:,}: " if step else "nothing was saved, started over: "
        self.say(f"killed    at {point}; {begun}{how}", *_replayed(made, lines))
        return tried

    def verdict(self, tried: list[Tried], reference: list[list[Line]]) -> str:
        """Return the verdict as a sentence. If a run differs, one more without a kill shows whether kills are the
        cause.
        """
        last = tried[-1]
        if last.identical:
            return verdict.identical(tried)
        if last.failed:
            return verdict.failed(last)
        if last.differs_before_the_kill:
            return verdict.differs_from_itself(last.comparison)
        self.say("again     without a kill: does the run repeat at all?")
        made = self.new("again")
        ended = drill.train(made.path, self.folder)
        again = traces.compare(reference, traces.read(made.path / "trace"))
        itself = ended.code == 0 and again.difference is not None
        return verdict.differs_from_itself(again) if itself else verdict.different(last)


def _as_train(cfg: DictConfig, folder: Path, masker: Masker) -> str:
    """Return the config of a training run in `folder`, with a trace and without trackers that others see, as YAML."""
    plain = cfg.copy()
    for key in _OWN_KEYS:
        plain.pop(key)
    # Derived again by each run, as a new start of the command does.
    plain.derived = dict.fromkeys(plain.derived)
    # All these runs have the same code, so none needs a snapshot.
    plain.runs_dir, plain.snapshot, plain.output = str(folder), False, "table"
    if "max_time" in plain.trainer:
        plain.trainer.max_time = None  # its end would be an interruption of the reference
    trackers = {name: node for name, node in (plain.get("logger") or {}).items() if node}
    away = [name for name, node in trackers.items() if node.get("_target_") != _CSV]
    if away:
        kept = {name: node for name, node in trackers.items() if name not in away}
        plain.logger = kept or {"csv": {"_target_": _CSV, "save_dir": "${derived.run_dir}/logs"}}
        say([f"trackers  {', '.join(away)} left out: these runs are no results"], masker)
    trace = {"_target_": "mlscale.verify_resume.trace.Trace", "folder": "${derived.run_dir}/trace"}
    plain.callbacks = {**(plain.get("callbacks") or {}), "trace_of_verify_resume": trace}
    protected, environment = protect(plain)
    os.environ.update(environment)  # literal secrets: no file holds them, and the runs still see them
    return OmegaConf.to_yaml(OmegaConf.create(protected))


@contextmanager
def _scratch(keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="mlscale-verify-resume-"))
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _failed(code: int, said: str) -> MLScaleError:
    what, _, rest = said.partition("\n")
    # The user's code may end the process with any number.
    known = code in [int(exit) for exit in Exit]
    return MLScaleError(
        f"the run fails without any kill: {what}" + (f"\n{rest}" if rest else ""),
        exit=Exit(code) if known else Exit.BUG,
    )


def _replayed(run: RunFolder, lines: list[list[Line]]) -> list[str]:
    """Return a line if a loader without a state of its own loaded batches again."""
    path = run.path / "results/fit.json"
    count = json.loads(path.read_text()).get("replayed", 0) if path.is_file() else 0
    if not count:
        return []
    began = [float(line.holds["seconds"]) for line in lines[0] if line.kind in traces.STARTS and line.attempt > 1]
    took = f" in {duration(began[0])}" if began else ""
    return [f"replayed  {count:,} batch{'es' * (count != 1)}{took}: the loader has no place of its own (state_dict)"]
