"""What the steps of a tour hand on to each other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale import commands
from mlscale.runs.folder import RunFolder

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.commands.lifecycle.clients import Asked, Client
    from mlscale.commands.lifecycle.production_samples import Samples
    from mlscale.commands.lifecycle.step_log import Tour
    from mlscale.export.servable import Servable
    from mlscale.launch.background_command import Background
    from mlscale.report import Result
    from mlscale.versions import LocalRegistry, Version

_OWN = ("lifecycle", "runs_dir", "output", "snapshot")  # what was typed for the tour alone


@dataclass(frozen=True)
class Load:
    """What asks the server throughout the retraining and the swap.

    Attributes:
        locust: a load test that ends when it is told to.
        asked: what clients that check each answer have seen.
        ends: ends those clients.
    """

    locust: Background
    asked: Asked
    ends: ExitStack


@dataclass
class Walk:
    """A tour under way. Everything lies in its folder: runs, registry, events, samples, results, logs.

    Attributes:
        cfg: the composed config.
        folder: the tour's own run folder.
        tour: tells the steps.
        ends: closes what was started, in any case.
        run: the training run.
        estimated_s: what its time was estimated to be.
        first: the version that was trained; the champion until the retraining.
        samples: what is sent.
        url: of the server.
        client: of the server.
        ids: of the shifted samples that were sent.
        sent_since: the time of the first of them, ISO 8601.
        load: what asks the server throughout the retraining.
    """

    cfg: DictConfig
    folder: RunFolder
    tour: Tour
    ends: ExitStack
    run: Path = field(init=False)
    estimated_s: float = field(init=False)
    first: Version = field(init=False)
    samples: Samples = field(init=False)
    url: str = field(init=False)
    client: Client = field(init=False)
    load: Load = field(init=False)
    ids: Sequence[str] = ()
    sent_since: str = ""

    @property
    def settings(self) -> Any:
        """conf/verb/lifecycle.yaml."""
        return self.cfg.lifecycle

    @property
    def champion(self) -> str:
        """How the servable is named in commands."""
        return f"{self.first.name}@champion"

    def place(self, name: str) -> Path:
        """A path in the tour's folder."""
        return self.folder.path / name

    def registry(self) -> LocalRegistry:
        """The tour's registry."""
        from mlscale.assembly.build import build

        registry: LocalRegistry = build(self.cfg.registry, "registry")
        return registry

    def servable(self, version: str) -> Servable:
        """A version of the registry, to compute what the server should answer."""
        from mlscale.export.servable import load

        return load(self.registry().resolve(version).payload)

    def call(self, verb: str, *overrides: str) -> Result:
        """Run a verb that trains, with what was typed, its runs in the tour's folder; keep its result."""
        words = list(self.cfg.derived.overrides or [])
        keys = [word.lstrip("+~").partition("=")[0].partition("@")[0].partition(".")[0] for word in words]
        typed = [word for word, key in zip(words, keys, strict=True) if key not in _OWN]
        return self._kept(verb, *overrides, *typed, "snapshot=false", self._registry, self._runs)

    def call_on_run(self, verb: str, *overrides: str) -> Result:
        """Run a verb on the training run, which has its config; keep its result."""
        return self._kept(verb, f"ref={self.run}", self._runs, *overrides)

    def call_service(self, verb: str, *overrides: str, name: str = "") -> Result:
        """Run a verb that neither trains nor starts from a run; keep its result, as `name` if it runs again."""
        return self._kept(verb, self._registry, self._runs, *overrides, name=name)

    def background(self, verb: str, *overrides: str) -> Background:
        """Start a verb that stays, at most until the tour ends."""
        words = [self._registry, self._runs, *overrides]
        return self.ends.enter_context(commands.background(verb, words, self.place("logs")))

    def _kept(self, verb: str, *overrides: str, name: str = "") -> Result:
        result = commands.call(verb, overrides)
        self.tour.keep(result, name or verb)
        return result

    @property
    def _runs(self) -> str:
        return f"runs_dir={self.place('runs')}"

    @property
    def _registry(self) -> str:
        return f"registry.root={self.place('registry')}"
