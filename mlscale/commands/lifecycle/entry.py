"""The whole lifecycle as one command: from data to a model that is retrained when production changes, and swapped."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from mlscale.commands.lifecycle import alert_steps, retraining_steps, swap_steps
from mlscale.commands.lifecycle import model_steps as model
from mlscale.commands.lifecycle import service_steps as service
from mlscale.commands.lifecycle.lifecycle_checks import check_lifecycle
from mlscale.commands.lifecycle.shifts.shift import CONCEPT
from mlscale.commands.lifecycle.step_log import StepOutcome, Tour
from mlscale.commands.lifecycle.step_state import LifecycleState
from mlscale.errors import Exit
from mlscale.export.required_extras import require_extra
from mlscale.launch.start_notices import print_masked_lines
from mlscale.report import Result, format_duration, save_result
from mlscale.runs.folder import RunFolder
from mlscale.secrets.config_secrets import protect_config
from mlscale.secrets.mask import Masker
from mlscale.verify_resume.killed_run import raise_on_terminate

if TYPE_CHECKING:
    from omegaconf import DictConfig

Step = tuple[str, Callable[[LifecycleState], StepOutcome]]
STEPS: tuple[Step, ...] = (
    ("prepare", model.prepare_shards),
    ("estimate", model.estimate_training),
    ("train", model.train_model),
    ("profile", model.profile_training),
    ("compress", model.compress_model),
    ("export", model.export_champion),
    ("serve", service.serve_champion),
    ("load test", service.run_load_test),
    ("shift", service.send_shifted_samples),
    ("alert", alert_steps.check_alert),
    ("retrain", retraining_steps.retrain_champion),
    ("swap", swap_steps.check_swap),
)
GATE: Step = ("gate", retraining_steps.stop_poisoned_cycle)
"""Before the retraining where labels have changed: nothing but a person knows that they are not poisoned."""


def run(cfg: DictConfig) -> Result:
    """Take the steps in order, and stop at the first whose gate fails. However it ends, the page is written, and no
    process is left.

    Raises:
        MLScaleError: what the data or the machine lacks, what ended a step, or an extra is not installed.
    """
    # All extras are checked first: the last step would otherwise fail after minutes.
    require_extra("all", "onnx", "onnxscript", "onnxruntime", "pyarrow", "httptools", "locust")
    subject = check_lifecycle(cfg)
    start, masker = time.perf_counter(), Masker.create_for_run(cfg)
    folder = _create_lifecycle_folder(cfg, masker)
    cfg = cfg.copy()
    # A registry of its own: a tour must not promote anything in the user's.
    cfg.registry.root = str(folder.path / "registry")
    steps = list_steps(str(cfg.lifecycle.shift))
    tour, state = Tour(folder, [title for title, _ in steps], masker), None
    ending = "failed"
    try:
        # SIGTERM raises, so that the stack closes the server and the clients.
        with raise_on_terminate(), ExitStack() as ends:
            state = LifecycleState(cfg, folder, tour, ends, subject)
            for _, step in steps:
                if not tour.take_step(partial(step, state)):
                    break
        ending = "done"
    except BaseException as error:
        # A tour that a user ends is not a failed one.
        stopped = isinstance(error, KeyboardInterrupt) or getattr(error, "exit", None) == Exit.TERMINATED
        ending = "interrupted" if stopped else ending
        raise
    finally:
        result = save_result(_build_lifecycle_result(cfg, tour, state, time.perf_counter() - start), folder)
        # In `finally`: a tour that failed is sealed, too, with the steps that it has taken.
        folder.seal_run(ending, metrics=result.metrics, sentence=result.sentence)
        print_masked_lines([f"page    {result.artifacts['page']}"], masker)
    return result


def list_steps(shift: str) -> tuple[Step, ...]:
    """Return the steps of a tour: where labels change there is one more, before the retraining."""
    return STEPS if shift != CONCEPT else (*STEPS[:-2], GATE, *STEPS[-2:])


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


def _build_lifecycle_result(cfg: DictConfig, tour: Tour, state: LifecycleState | None, seconds: float) -> Result:
    return Result(
        command="lifecycle",
        ok=tour.ok,
        sentence=_summarize_lifecycle(cfg, tour, state, seconds),
        metrics={**tour.metrics, "steps": sum(bool(step.ok) for step in tour.steps), "time_s": seconds},
        artifacts={"run": str(tour.folder.path)},
        overrides=list(cfg.derived.overrides or []),
        steps=tour.list_steps(),
    )


def _describe_end(tour: Tour) -> str:
    """Return where a tour ended that is not complete."""
    if not tour.steps:
        return "stopped at the start"
    last, number = tour.steps[-1], f"[{len(tour.steps)}/{len(tour.titles)}]"
    # A step that passed is not the reason, such as where nothing reads the output any more.
    return f"ended after {number} {last.title}" if last.ok else f"stopped at {number} {last.title}: {last.sentence}"


def _summarize_lifecycle(cfg: DictConfig, tour: Tour, state: LifecycleState | None, seconds: float) -> str:
    if not tour.ok or state is None:
        return f"{cfg.name} {_describe_end(tour)}"
    metrics, metric = tour.metrics, state.metric
    served, before, after = (
        metric.format_value(metrics[name.format(metric.name)])
        for name in ("served_{}", "shifted_{}_before", "shifted_{}")
    )
    original = metrics.get(f"original_{metric.name}")
    others = " without the relabelled classes" if state.shift.relabelled else ""
    retained = f" ({metric.format_value(original)} on the original data{others})" if original is not None else ""
    stopped = "the gate stopped a retraining until a person confirmed the change; " if state.shift.is_concept else ""
    return (
        f"{cfg.name} was trained to {metric.definition.display_name} {served} and served; production changed "
        f"({state.shift.description}), which made it {before}; an alert came; {stopped}a retraining brought it to "
        f"{after}{retained}; the swap had {metrics['swap_dropped']:.0f} of {metrics['swap_requests']:,.0f} requests "
        f"dropped and {metrics['swap_wrong']:.0f} wrong: {format_duration(seconds)}"
    )
