"""The whole lifecycle as one command: from data to a model that is retrained when production changes, and swapped."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mlscale.commands.lifecycle.production import build_prepared_data
from mlscale.commands.lifecycle.shifts import AUTO, CONCEPT, INPUT_SHIFTS, list_fitting_shifts
from mlscale.commands.lifecycle.steps import Lifecycle, StepOutcome
from mlscale.config.metric_choice import resolve_configured_type
from mlscale.config.targets import import_target
from mlscale.errors import Exit, MLScaleError, raise_all
from mlscale.export.required_extras import require_extra
from mlscale.launch.start_notices import print_masked_lines
from mlscale.report import ReportStep, Result, format_duration, save_result
from mlscale.runs.folder import RunFolder
from mlscale.runs.host.stop_signals import raise_on_terminate
from mlscale.secrets.config_secrets import protect_config
from mlscale.secrets.mask import MaskedStream, Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.task_types.task_type import TaskType

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
GATE: Step = ("gate", Lifecycle.stop_poisoned_cycle)
"""Before the retraining where labels have changed: nothing but a person knows that they are not poisoned."""
_MIN_SAMPLES, _MIN_TRAFFIC = 200, 300
"""Different samples that a retraining needs (`window.min_samples`), and the least traffic: a part of it is held out."""


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
    steps = list_steps(str(cfg.lifecycle.shift))
    tour, is_complete, ending = Tour(folder, [title for title, _ in steps], masker), False, "failed"
    try:
        # SIGTERM raises, so that the stack closes the server and the client.
        with raise_on_terminate(), ExitStack() as ends:
            lifecycle = Lifecycle(cfg, folder, ends)
            is_complete = all(tour.take_step(partial(step, lifecycle)) for _, step in steps)
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


def list_steps(shift: str) -> tuple[Step, ...]:
    """Return the steps of a tour: where labels change there is one more, before the retraining."""
    return STEPS if shift != CONCEPT else (*STEPS[:-2], GATE, *STEPS[-2:])


def check_lifecycle(cfg: DictConfig) -> None:
    """Check what would be found after minutes: that the tour can send the model's samples, and retrain on them.

    Raises:
        MLScaleError: it can't; all reasons that are known without each other.
    """
    raise_all(_list_setting_problems(cfg))
    task_type = resolve_configured_type(cfg)
    if task_type is None or not type(task_type).__module__.startswith("mlscale."):
        raise MLScaleError(
            "the tour needs a built-in task type",
            where="task",
            why="it monitors and retrains by the metric of the type, and knows its labels",
            fix="task=classification, or another of docs/tasks.md",
        )
    _check_data(cfg, task_type)


def _list_setting_problems(cfg: DictConfig) -> list[MLScaleError]:
    traffic, problems = cfg.lifecycle.traffic, []
    if traffic < _MIN_TRAFFIC:
        problems.append(
            MLScaleError(
                f"lifecycle.traffic is {traffic}",
                where="lifecycle.traffic",
                why=f"a retraining needs {_MIN_SAMPLES} labelled samples at least, and a part of them is held out",
                fix="lifecycle.traffic=700",
            )
        )
    if not cfg.get("registry"):
        problems.append(MLScaleError("the tour needs a registry", where="registry", fix="registry=local"))
    return problems


def _check_data(cfg: DictConfig, task_type: TaskType) -> None:
    from mlscale.data.data_module import OrderedData

    kind: Any = import_target(cfg.data) if cfg.get("data") else None
    # The class is known without its data, which may take minutes to read.
    data = (
        build_prepared_data(cfg)
        if isinstance(kind, type) and issubclass(kind, OrderedData) and kind.takes_windows
        else None
    )
    if data is None or data.encoder().kind not in INPUT_SHIFTS:
        raise MLScaleError(
            "the tour needs images, rows of a table or texts",
            where="data",
            why="it sends samples in raw form, by mlscale's own data modules, and retrains on them",
            fix="data=table, data=text_table, data=text_files, data=webdataset",
        )
    if (samples := data.facts().train_samples) < _MIN_SAMPLES:
        raise MLScaleError(
            f"the data has {samples:,} training samples",
            where="data",
            why=f"they are sent as production, and a retraining needs {_MIN_SAMPLES} different ones",
            fix=f"train on data with at least {_MIN_SAMPLES} training samples",
        )
    shift, fitting = str(cfg.lifecycle.shift), list_fitting_shifts(data.encoder(), task_type)
    if shift not in fitting and not (shift == AUTO and set(fitting) - {CONCEPT}):
        raise MLScaleError(
            f"the shift '{shift}' does not fit this model",
            where="lifecycle.shift",
            why=f"of {data.encoder().kind} samples, and labels of the type {task_type.name}, these can change: "
            f"{', '.join(fitting) or 'none'}",
            fix="\n".join(f"lifecycle.shift={name}" for name in fitting) or "mlscale recipes ls, for another model",
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
        title, start = self.titles[len(self.steps)], time.perf_counter()
        # Some steps take a minute. The line is erased when the step has ended.
        if is_terminal := sys.stderr.isatty():
            print(f"{self._format_number(len(self.steps))} {title} …", end="\r", file=sys.stderr, flush=True)
        try:
            with self._redirect_output(title):
                outcome = act()
        # BaseException: the page must show a step that Ctrl-C has ended, too.
        except BaseException as error:
            why = error.what if isinstance(error, MLScaleError) else str(error) or type(error).__name__
            outcome = StepOutcome(why, ok=False)
            raise
        finally:
            seconds = time.perf_counter() - start
            line = (
                f"{self._format_number(len(self.steps))} {title:<{max(map(len, self.titles))}}  "
                f"{'' if outcome.ok else 'STOP  '}{outcome.sentence}  ({format_duration(seconds)})"
            )
            # Before it is printed: where nothing reads the output any more printing fails, and the page must have it.
            plot = next(iter(outcome.result.figures), None) if outcome.result else None
            self.steps.append(ReportStep(title, outcome.sentence, outcome.ok, "", seconds, plot, outcome.page))
            self.metrics |= {**outcome.metrics, f"{title.replace(' ', '_')}_time_s": seconds}
            print_masked_lines([f"\033[K{line}" if is_terminal else line], self.masker)
        return outcome.ok

    def list_steps(self) -> tuple[ReportStep, ...]:
        """Return all steps for the page, including those that were not reached."""
        return (*self.steps, *(ReportStep(title, ok=None) for title in self.titles[len(self.steps) :]))

    def describe_end(self) -> str:
        """Return where a tour ended that is not complete."""
        if not self.steps:
            return "stopped at the start"
        last, number = self.steps[-1], f"[{len(self.steps)}/{len(self.titles)}]"
        # A step that passed is not the reason, such as where nothing reads the output any more.
        return f"ended after {number} {last.title}" if last.ok else f"stopped at {number} {last.title}: {last.sentence}"

    def _format_number(self, index: int) -> str:
        return f"[{index + 1:>2}/{len(self.titles)}]"

    @contextlib.contextmanager
    def _redirect_output(self, title: str) -> Iterator[None]:
        """Redirect the output of the step's commands to a file of the step."""
        path = self.folder.path / "logs" / f"{len(self.steps) + 1:02}-{title.replace(' ', '-')}.log"
        with path.open("w", encoding="utf-8", buffering=1) as file:
            stream = MaskedStream(file, self.masker)
            try:
                with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
                    yield
            finally:
                # Text is held back until a secret that it may begin can be excluded: the rest is written here.
                stream.write_waiting()
