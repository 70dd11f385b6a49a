"""The state that the steps of a tour share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale import commands
from mlscale.runs.folder import RunFolder

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.commands.lifecycle.clients import ClientObservations, ServerClient
    from mlscale.commands.lifecycle.key_metric import KeyMetric
    from mlscale.commands.lifecycle.lifecycle_checks import LifecycleSubject
    from mlscale.commands.lifecycle.production_samples import LabelledSamples, LifecycleSamples
    from mlscale.commands.lifecycle.shifts.shift import Shift
    from mlscale.commands.lifecycle.step_log import Tour
    from mlscale.export.servable import Servable
    from mlscale.launch.background_command import BackgroundCommand
    from mlscale.report import Result
    from mlscale.versions import LocalRegistry, Version

_LIFECYCLE_KEYS = ("lifecycle", "runs_dir", "output", "log_format", "snapshot")  # what was typed for the tour alone


_MAX_DROP = 0.03


@dataclass(frozen=True)
class RunningLoad:
    """The load on the server throughout the retraining and the swap.

    Attributes:
        locust: a load test that ends on a signal.
        observations: the observations of clients that check each answer.
        ends: ends those clients.
    """

    locust: BackgroundCommand
    observations: ClientObservations
    ends: ExitStack


@dataclass
class LifecycleState:
    """A tour under way. Everything is in its folder: runs, registry, events, samples, results, logs.

    Attributes:
        cfg: the composed config.
        folder: the tour's own run folder.
        tour: reports the steps.
        ends: closes what was started, in any case.
        subject: the model, as its config shows it.
        run: the training run.
        estimated_s: its estimated time.
        first: the version that was trained; the champion until the retraining.
        servable: of that version.
        metric: of all sentences.
        samples: of the model's data.
        shift: what changes in production.
        shifted: the samples that production sends after the change.
        url: of the server.
        client: of the server.
        ids: of the shifted samples that were sent.
        sent_since: the time of the first of them, ISO 8601.
        load: on the server throughout the retraining.
    """

    cfg: DictConfig
    folder: RunFolder
    tour: Tour
    ends: ExitStack
    subject: LifecycleSubject
    # Set by the steps in their order: reading one too early is an AttributeError, not a wrong value.
    run: Path = field(init=False)
    estimated_s: float = field(init=False)
    first: Version = field(init=False)
    servable: Servable = field(init=False)
    metric: KeyMetric = field(init=False)
    samples: LifecycleSamples = field(init=False)
    shift: Shift = field(init=False)
    shifted: LabelledSamples = field(init=False)
    url: str = field(init=False)
    client: ServerClient = field(init=False)
    load: RunningLoad = field(init=False)
    ids: Sequence[str] = ()
    sent_since: str = ""

    @property
    def settings(self) -> Any:
        """The settings of conf/command/lifecycle.yaml."""
        return self.cfg.lifecycle

    @property
    def max_drop(self) -> float:
        """What a challenger may lose on the original data: 3 %, or the margin of error of a share where validation
        samples are so few that they could not show that.
        """
        return max(_MAX_DROP, round(1 / math.sqrt(len(self.samples.held_out)), 3))

    @property
    def champion(self) -> str:
        """The reference to the servable in commands."""
        return f"{self.first.name}@champion"

    def resolve_path(self, name: str) -> Path:
        """Return a path in the tour's folder."""
        return self.folder.path / name

    def build_registry(self) -> LocalRegistry:
        """Return the tour's registry."""
        from mlscale.assembly.build import build

        registry: LocalRegistry = build(self.cfg.registry, "registry")
        return registry

    def load_servable(self, version: str) -> Servable:
        """Return a version of the registry, to compute the answers that the server should give."""
        from mlscale.export.servable import load

        return load(self.build_registry().resolve_version(version).payload)

    def run_with_typed_overrides(self, command: str, *overrides: str) -> Result:
        """Run a command that trains, with the typed overrides, its runs in the tour's folder; keep its result."""
        words = list(self.cfg.derived.overrides or [])
        keys = [word.lstrip("+~").partition("=")[0].partition("@")[0].partition(".")[0] for word in words]
        # Keys of the tour itself are unknown to the commands that it runs.
        typed = [word for word, key in zip(words, keys, strict=True) if key not in _LIFECYCLE_KEYS]
        return self._run_and_keep(command, *overrides, *typed, "snapshot=false", self._registry, self._runs)

    def run_on_training_run(self, command: str, *overrides: str) -> Result:
        """Run a command on the training run, which has its config; keep its result."""
        # Without the typed overrides: the run's frozen config has them already.
        return self._run_and_keep(command, f"ref={self.run}", self._runs, *overrides)

    def run_service_command(self, command: str, *overrides: str, name: str = "") -> Result:
        """Run a command that neither trains nor starts from a run; keep its result, as `name` if it runs again."""
        return self._run_and_keep(command, self._registry, self._runs, *overrides, name=name)

    def start_lifecycle_process(self, command: str, *overrides: str) -> BackgroundCommand:
        """Start a command that keeps running, at most until the tour ends."""
        words = [self._registry, self._runs, *overrides]
        return self.ends.enter_context(commands.start_in_background(command, words, self.resolve_path("logs")))

    def _run_and_keep(self, command: str, *overrides: str, name: str = "") -> Result:
        result = commands.run_command(command, overrides)
        self.tour.write_step_result(result, name or command)
        return result

    @property
    def _runs(self) -> str:
        return f"runs_dir={self.resolve_path('runs')}"

    @property
    def _registry(self) -> str:
        return f"registry.root={self.resolve_path('registry')}"
