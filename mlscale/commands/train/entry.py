"""Train what a recipe describes."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mlscale.assembly.end_notification import tell_end
from mlscale.assembly.first_weights import initial_of
from mlscale.assembly.precision_probe import is_auto, kept, settled
from mlscale.atomic_files import check_writable, remove_empty
from mlscale.config.checks.notices import notices, unpromised_data
from mlscale.config.checks.trust import distrusted
from mlscale.config.composition.frozen import composed, with_derived
from mlscale.config.derive import derive
from mlscale.config.metric_choice import kept_choice
from mlscale.errors import Exit, MLScaleError
from mlscale.launch.garbage_collection import put_off
from mlscale.launch.start_notices import say, start_lines
from mlscale.report import Result, keep, number
from mlscale.report.curves import curves
from mlscale.report.text import percent
from mlscale.runs import ownership as own
from mlscale.runs.code_snapshot import Snapshot, take
from mlscale.runs.find import find, unfinished
from mlscale.runs.folder import RunFolder
from mlscale.runs.identity import config_hash
from mlscale.runs.initial_source import Initial
from mlscale.runs.lock import claimed, held
from mlscale.runs.resume_plan import AUTO, open_attempt, to_go_on, unfinished_line
from mlscale.secrets.config_secrets import protect
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

_PROBE = "results/precision.json"  # the chosen precision compared with fp32, where both were measured
# The same values stand under a name of their own: the epoch's mean loss is train/loss, the peak is peak_memory_bytes.
_TOLD_ONCE = ("train/loss_epoch", "train/peak_memory_gib")


def run(cfg: DictConfig) -> Result:
    """Derive, freeze, launch, record; or resume a run that was cut short.

    Raises:
        MLScaleError: what the data or the machine lacks, before anything starts; or what ended the run.
    """
    from mlscale.assembly.launch import launch
    from mlscale.launch.local_launch import warm_up

    # The fork server imports torch while this process prepares the data.
    warm_up(cfg.trainer.devices)
    masker = Masker.of(cfg)
    with put_off():
        from mlscale.assembly.facts import data_facts
        from mlscale.launch.local_devices import this_machine

        machine = this_machine()
        import_module("mlscale.assembly.run")
    facts = data_facts(cfg)
    derived = derive(cfg, facts, machine)
    start = Start.of(cfg, masker)
    # The run's lock is taken inside the lock of the runs folder, and held until the end of the run.
    with contextlib.ExitStack() as locks:
        with claimed(Path(cfg.runs_dir), wanted=cfg.resume == AUTO) as made:
            locks.callback(remove_empty, made)  # a start that is refused leaves nothing
            earlier = to_go_on(cfg.resume, start.config_yaml, start.digest, Path(cfg.runs_dir)) if cfg.resume else None
            origin = Origin() if earlier else Origin.of(cfg)
            # A resumed run keeps the precision that its first attempt has chosen: another one would give other numbers.
            probed = None if earlier else settled(cfg, derived, machine)
            derived |= _choices_before(cfg, earlier) if earlier else probed.outcome if probed else {}
            folder = earlier or create(cfg, start, derived, masker, origin)
            locks.enter_context(held(folder))
        inexact: tuple[str, ...] = ()
        checkpoint, lines = None, [*origin.lines(), *start.unfinished(cfg, folder), *_unproven(folder)]
        if probed is not None:
            lines.append(probed.line)
            folder.write_json(_PROBE, dict(probed.figures))
        if earlier is not None:
            going = open_attempt(folder, derived["world_size"], start.digest)
            folder.set_anew(start.config_yaml, derived)
            checkpoint, lines, inexact = going.checkpoint, list(going.lines), going.inexact
        # Read back from the folder, which has added run_dir and name.
        ready = with_derived(cfg, folder.derived)
        say((*start_lines(ready, facts), *lines, *notices(ready, machine)), masker)
        try:
            launch(folder.path, derived["world_size"], checkpoint)
        # Also Ctrl-C and signals: every run that has started is sealed.
        except BaseException as error:
            if earlier is None and isinstance(error, MLScaleError) and error.unbuilt and error.exit == Exit.USER:
                folder.discard()  # a config that is refused leaves nothing
            else:
                _seal_failed(folder, error)
                tell_end(ready, folder)
            raise
        ready = with_derived(cfg, folder.derived)  # the metric may have been chosen meanwhile
        # Before the seal, which records the digests of all files.
        result = keep(conclude(ready, folder, inexact), folder)
        folder.seal("done", metrics=result.metrics, sentence=result.sentence)
        tell_end(ready, folder)
    return result


@dataclass(frozen=True)
class Start:
    """The start of a run, before it has a folder.

    Attributes:
        config_yaml: the composed config, interpolations kept, secrets taken out.
        code: the snapshot of the code, if one was requested.
    """

    config_yaml: str
    code: Snapshot | None

    @classmethod
    def of(cls, cfg: DictConfig, masker: Masker) -> Start:
        """Return the start of a run. Literal secrets go into the environment: no file holds them, and ranks still see
        them.
        """
        plain = cfg.copy()
        plain.derived = dict.fromkeys(plain.derived)
        protected, environment = protect(plain)
        os.environ.update(environment)
        check_writable(Path(cfg.runs_dir))  # before anything is printed about a run that can't start
        code = take() if cfg.snapshot else None
        say(code.warnings() if code else [], masker)
        return cls(OmegaConf.to_yaml(OmegaConf.create(protected)), code)

    @property
    def digest(self) -> str | None:
        """The SHA-256 of the code."""
        return self.code.digest if self.code else None

    def unfinished(self, cfg: DictConfig, new: RunFolder) -> list[str]:
        """Return a line that names a run of the same config and code which was cut short, if there is one."""
        run = unfinished(config_hash(self.config_yaml), self.digest, Path(cfg.runs_dir), but=new.id)
        stopped = run is not None and run.checkpoints and run.status in ("crashed", "failed", "interrupted")
        return [unfinished_line(run)] if run is not None and stopped else []


@dataclass(frozen=True)
class Origin:
    """The origin of a new run: none, by default.

    Attributes:
        initial: its first weights.
        like: the run whose config it has.
    """

    initial: Initial | None = None
    like: RunFolder | None = None

    @classmethod
    def of(cls, cfg: DictConfig) -> Origin:
        """Return the origin that the config names.

        Raises:
            MLScaleError: the run or checkpoint is not found, or corrupt.
        """
        return cls(initial_of(cfg), find(cfg.like, cfg.runs_dir) if cfg.like else None)

    @property
    def parent(self) -> str | None:
        """The id of the run that the new one starts from: that of its weights before that of its config."""
        # The weights decide what a model has learnt; a config alone does not.
        of_weights = self.initial.run if self.initial else None
        return of_weights or (self.like.id if self.like else None)

    def lines(self) -> list[str]:
        """Return the lines that report it."""
        lines = [f"like      {self.like.path.name}"] if self.like else []
        return lines + ([self.initial.line()] if self.initial else [])


def create(cfg: DictConfig, start: Start, derived: dict[str, Any], masker: Masker, origin: Origin) -> RunFolder:
    """Make the run folder."""
    return RunFolder.create(
        cfg.runs_dir,
        cfg.name,
        verb="train",
        config_yaml=start.config_yaml,
        derived=derived,
        seed=cfg.seed,
        data_version=derived["data_version"],
        label_digest=derived["label_digest"],
        order_version=_order_version(),
        decode_version=derived.get("decode_version"),
        overrides=list(cfg.derived.overrides or []),
        tags=list(cfg.tags),
        notes=cfg.notes,
        metric=derived["metric"],
        mode=derived["mode"],
        code=start.code,
        parent=origin.parent,
        init=origin.initial.document() if origin.initial else None,
        sweep=cfg.derived.sweep_dir,
        masker=masker,
    )


def _choices_before(cfg: DictConfig, run: RunFolder) -> dict[str, Any]:
    """Return the precision and the metric that the run chose when it began, where its config leaves them open.

    Raises:
        MLScaleError: derived.yaml, which holds them, is corrupt.
    """
    try:
        before = run.derived
    except MLScaleError as damage:
        if not is_auto(cfg) and cfg.metric is not None and cfg.mode is not None:
            return {}
        why = "which precision or metric the run chose is lost with it"
        fix = f"restore it from a copy, or a new run: mlscale like={run.path}"
        raise MLScaleError(damage.what, where=damage.where, why=why, fix=fix) from damage
    return kept(cfg, before) | kept_choice(cfg, before)


def _unproven(folder: RunFolder) -> list[str]:
    """Return a line if later commands will not trust this run's config, because its creator can't be proven."""
    # A proof was written, so later commands of this user trust the run (docs/decisions/0021).
    if folder.run.get("proof"):
        return []
    problems = distrusted(OmegaConf.to_container(composed(folder.path), resolve=False), folder.path)
    return [f"trust     later commands on this run need trust=true: {own.obstacle()}"] if problems else []


def _seal_failed(folder: RunFolder, error: BaseException) -> None:
    """Seal a run that ended with `error`; where the disk is full it stays unsealed, and the error is reported."""
    try:
        folder.seal(_ending(error), sentence=str(error))
    except MLScaleError as unwritten:
        with contextlib.suppress(OSError):
            print(f"warning   {unwritten.what}: {unwritten.why}", file=sys.stderr, flush=True)


def conclude(cfg: DictConfig, folder: RunFolder, inexact: tuple[str, ...] = ()) -> Result:
    """Return the result, from what rank 0 left in the run folder; `inexact`: why a resumed run may have other bits."""
    fit = json.loads((folder.path / "results/fit.json").read_text())
    metrics: dict[str, Any] = {}
    if fit["best"] is not None:
        metrics[f"best_{cfg.metric}"] = fit["best"][1]
    # Sorted: the order of logging may change from run to run, and tables are compared.
    metrics |= {name: fit["metrics"][name] for name in sorted(fit["metrics"]) if name not in _TOLD_ONCE}
    if fit["samples"] and fit["train_seconds"]:
        # Of the training alone: set-up and validation would make short runs look slow.
        metrics["throughput_samples_per_s"] = fit["samples"] / fit["train_seconds"]
    metrics |= {"time_s": fit["seconds"], "steps": fit["steps"]}
    if fit["peak_memory_bytes"]:  # absent for a resumed fit with nothing left to do
        metrics["peak_memory_bytes"] = fit["peak_memory_bytes"]
    metrics |= fit.get("joined", {})
    if (folder.path / _PROBE).is_file():
        metrics |= json.loads((folder.path / _PROBE).read_text())
    metrics = {name: math.nan if value is None else value for name, value in metrics.items()}  # as `Result.from_dict`
    artifacts, steps = {"run": str(folder.path)}, fit["steps"]
    if fit["best"] is not None:
        artifacts["checkpoint"] = fit["best"][0]
    return Result(
        verb="train",
        ok=fit.get("met", True),
        sentence="; ".join(
            [
                f"{cfg.name}: {_headline(cfg, metrics, fit['best'])} after {steps:,} step{'s' * (steps != 1)}"
                + _resumed(fit, inexact, unpromised_data(cfg))
                + _unsaved(fit),
                *fit.get("remarks", ()),
            ]
        ),
        metrics=metrics,
        artifacts=artifacts,
        figures=curves(folder.path / "logs/metrics.csv", cfg.metric or "train/loss"),
    )


def _unsaved(fit: dict[str, Any]) -> str:
    """Return a phrase with the number of checkpoints that could not be saved, if any."""
    count = fit.get("failed_saves", 0)
    return f"; disk full: {count} save{'s' * (count != 1)} of a checkpoint failed" if count else ""


def _headline(cfg: DictConfig, metrics: dict[str, Any], best_checkpoint: list[Any] | None) -> str:
    """Return the run's metric: at the best checkpoint, and at the end if that differs."""
    ends = (metrics.get(f"best_{cfg.metric}"), metrics.get(cfg.metric))
    shown = [_shown(cfg.metric, value) for value in ends if value is not None]
    if not shown:
        return f"no {cfg.metric or 'metric'} was logged"
    # Compared as shown: a difference that rounding hides is not worth two numbers.
    if len(set(shown)) == 1 or best_checkpoint is None:
        return f"{cfg.metric} {shown[0]}"
    return f"best {cfg.metric} {shown[0]} ({Path(best_checkpoint[0]).name}), {shown[1]} at the end,"


def _resumed(fit: dict[str, Any], inexact: tuple[str, ...], data: str) -> str:
    """Return a phrase about a run that was resumed: bitwise identical is only claimed if nothing is known to differ.

    Args:
        fit: what rank 0 left.
        inexact: why it may have other bits.
        data: the source that may give other samples than before; '' if they are promised to be the same.
    """
    if fit["resumed_step"] is None:
        return ""
    why = "; ".join([*fit["inexact"], *inexact])
    same = f", if {data} gives the same samples again" if data else ""
    held = f"with the same samples{same}, not bitwise identical ({why})" if why else f"bitwise identical{same}"
    return f"; resumed from step {fit['resumed_step']:,} {held}"


def _shown(name: str, value: float) -> str:
    return percent(value, 2) if name.endswith("accuracy") else number(value)


def _ending(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, MLScaleError):
        stopped = (Exit.SAVED, Exit.INTERRUPTED, Exit.TERMINATED)
        return "diverged" if error.exit == Exit.DIVERGED else "interrupted" if error.exit in stopped else "failed"
    return "failed"


def _order_version() -> int:
    from mlscale.data.order.permutation import ORDER_VERSION

    return ORDER_VERSION
