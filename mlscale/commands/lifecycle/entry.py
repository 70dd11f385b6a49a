"""The whole lifecycle as one command: from data to a model that is retrained when production changes, and swapped."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from functools import partial
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from mlscale.assembly.run_data import RunData
from mlscale.commands.lifecycle.production import list_input_shifts
from mlscale.commands.lifecycle.steps import Lifecycle, StepOutcome
from mlscale.config.metric_choice import resolve_configured_type
from mlscale.data.data_module import OrderedData
from mlscale.errors import Exit, MLScaleError
from mlscale.export.required_extras import require_extra
from mlscale.launch.start_notices import print_masked_lines
from mlscale.report import ReportStep, Result, format_duration, save_result
from mlscale.runs.folder import RunFolder
from mlscale.runs.host.processes import raise_on_terminate
from mlscale.secrets.config_secrets import protect_config
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig


Step = tuple[str, Callable[[Lifecycle], StepOutcome]]
STEPS: tuple[Step, ...] = (
    ("prepare", Lifecycle.prepare_shards),
    ("estimate", Lifecycle.estimate_training),
    ("train", Lifecycle.train_model),
    ("profile", Lifecycle.profile_training),
    ("compress", Lifecycle.compress_model),
    ("export", Lifecycle.export_champion),
    ("serve", Lifecycle.serve_champion),
    ("load test", Lifecycle.run_load_test),
    ("shift", Lifecycle.send_shifted_samples),
    ("alert", Lifecycle.check_alert),
    ("retrain", Lifecycle.retrain_champion),
    ("swap", Lifecycle.check_swap),
)
_MIN_SAMPLES = 300
"""A retraining needs 200 different samples (`window.min_samples`), and a part of them is held out."""


def run(cfg: DictConfig) -> Result:
    """Take the steps in order, and stop at the first whose gate fails. However it ends, the page is written, and no
    process is left.

    Raises:
        MLScaleError: what the data or the machine lacks, what ended a step, or an extra is not installed.
    """
    # All extras are checked first: the last step would otherwise fail after minutes.
    require_extra("all", "onnx", "onnxscript", "onnxruntime", "pyarrow", "httptools", "locust")
    check_lifecycle(cfg)
    start, masker = time.perf_counter(), Masker.create_for_run(cfg)
    folder = _create_lifecycle_folder(cfg, masker)
    cfg = cfg.copy()
    # A registry of its own: a tour must not promote anything in the user's.
    cfg.registry.root = str(folder.path / "registry")
    tour, is_complete, ending = Tour(folder, [title for title, _ in STEPS], masker), False, "failed"
    try:
        # SIGTERM raises, so that the stack closes the server and the client.
        with raise_on_terminate(), ExitStack() as ends:
            lifecycle = Lifecycle(cfg, folder, ends)
            is_complete = all(tour.take_step(partial(step, lifecycle)) for _, step in STEPS)
        ending = "done"
    except BaseException as error:
        # A tour that a user ends is not a failed one.
        stopped = isinstance(error, KeyboardInterrupt) or getattr(error, "exit", None) == Exit.TERMINATED
        ending = "interrupted" if stopped else ending
        raise
    finally:
        seconds = time.perf_counter() - start
        done = f"was trained, served, retrained and swapped in {format_duration(seconds)}: "
        end = done + tour.steps[-1].sentence if is_complete else tour.describe_end()
        result = Result(
            command="lifecycle",
            ok=is_complete,
            sentence=f"{cfg.name} {end}",
            metrics={**tour.metrics, "steps": sum(bool(step.ok) for step in tour.steps), "time_s": seconds},
            artifacts={"run": str(folder.path)},
            overrides=list(cfg.derived.overrides or []),
            steps=tour.list_steps(),
        )
        result = save_result(result, folder)
        # In `finally`: a tour that failed is sealed, too, with the steps that it has taken.
        folder.seal_run(ending, metrics=result.metrics, sentence=result.sentence)
        print_masked_lines([f"page    {result.artifacts['page']}"], masker)
    return result


def check_lifecycle(cfg: DictConfig) -> None:
    """Check what would be found after minutes: that the tour can send the model's samples, and retrain on them.

    Raises:
        MLScaleError: it can't.
    """
    if not cfg.get("registry"):
        raise MLScaleError("the tour needs a registry", where="registry", fix="registry=local")
    data = RunData().prepare_module(cfg) if resolve_configured_type(cfg) else None
    is_known = isinstance(data, OrderedData) and data.takes_windows and list_input_shifts(data.encoder())
    if data is None or not is_known or min(data.facts().train_samples, cfg.lifecycle.traffic) < _MIN_SAMPLES:
        raise MLScaleError(
            f"the tour needs a built-in task type, and {_MIN_SAMPLES} images, rows with a column of numbers, or texts",
            where="data, task, lifecycle.traffic",
            why="it sends training samples in raw form, changed, by mlscale's own data modules, and retrains on them",
            fix="data=table, data=text_table, data=text_files, data=webdataset; lifecycle.traffic=700",
        )


def _create_lifecycle_folder(cfg: DictConfig, masker: Masker) -> RunFolder:
    """Create the tour's run folder: it holds the runs, the registry, the events and the results of all steps."""
    plain = cfg.copy()
    plain.derived = dict.fromkeys(plain.derived)
    protected, _ = protect_config(plain)
    return RunFolder.create(
        cfg.runs_dir,
        f"{cfg.name}-lifecycle",
        command="lifecycle",
        config_yaml=OmegaConf.to_yaml(OmegaConf.create(protected)),
        seed=cfg.seed,
        overrides=list(cfg.derived.overrides or []),
        tags=list(cfg.tags),
        notes=cfg.notes,
        masker=masker,
    )


class Tour:
    """The progress report of a series of steps, each with its key metric, and a log of its commands' output.

    Args:
        folder: where results and logs are kept.
        titles: of all steps.
        masker: removes secrets from the output.
    """

    def __init__(self, folder: RunFolder, titles: Sequence[str], masker: Masker) -> None:
        self.folder, self.titles, self.masker = folder, tuple(titles), masker
        self.steps: list[ReportStep] = []
        self.metrics: dict[str, float] = {}

    def take_step(self, act: Callable[[], StepOutcome]) -> bool:
        """Take the next step; return whether it has passed its gate.

        Raises:
            Whatever the step raises; the page shows it.
        """
        number, title, start = len(self.steps) + 1, self.titles[len(self.steps)], time.perf_counter()
        log = self.folder.path / "logs" / f"{number:02}-{title.replace(' ', '-')}.log"
        prefix = f"[{number:>2}/{len(self.titles)}] {title:<{max(map(len, self.titles))}}  "
        # Some steps take a minute. The line is written over when the step has ended.
        if sys.stderr.isatty():
            print(f"{prefix}…", end="\r", file=sys.stderr, flush=True)
        try:
            with log.open("w", encoding="utf-8", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
                # The commands mask secrets in their output themselves.
                outcome = act()
        # BaseException: the page must show a step that Ctrl-C has ended, too.
        except BaseException as error:
            why = error.what if isinstance(error, MLScaleError) else str(error) or type(error).__name__
            outcome = StepOutcome(why, ok=False)
            raise
        finally:
            seconds = time.perf_counter() - start
            line = f"{prefix}{'' if outcome.ok else 'STOP  '}{outcome.sentence}  ({format_duration(seconds)})"
            # Before it is printed: where nothing reads the output any more printing fails, and the page must have it.
            plot = next(iter(outcome.result.figures), None) if outcome.result else None
            page = f"{outcome.result.command}.html" if outcome.result else ""
            self.steps.append(ReportStep(title, outcome.sentence, outcome.ok, "", seconds, plot, page))
            self.metrics |= {**outcome.metrics, f"{title.replace(' ', '_')}_time_s": seconds}
            print_masked_lines([line], self.masker)
        return outcome.ok

    def list_steps(self) -> tuple[ReportStep, ...]:
        """Return all steps for the page, including those that were not reached."""
        return (*self.steps, *(ReportStep(title, ok=None) for title in self.titles[len(self.steps) :]))

    def describe_end(self) -> str:
        """Return where a tour ended that is not complete."""
        ends = [f"[{number}/{len(self.titles)}] {step.title}" for number, step in enumerate(self.steps, 1)]
        return f"stopped at {ends[-1]}: {self.steps[-1].sentence}" if ends else "stopped at the start"
