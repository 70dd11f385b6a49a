"""The steps of a tour, each a command of mlscale and what must be true of its result."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale import commands
from mlscale.commands.lifecycle.production import CheckedClient, LabelledSamples, choose_shift, load_samples
from mlscale.report import Result, format_number
from mlscale.runs.folder import RunFolder

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.export.servable import Servable
    from mlscale.retrain.gate.overall_change import OverallChange
    from mlscale.versions import LocalRegistry

_LIFECYCLE_KEYS = ("lifecycle", "runs_dir", "output", "log_format", "snapshot")  # what was typed for the tour alone
_ALPHA, _MAX_DROP = 0.05, 0.03
_TOLERANCE = 0.1  # of flips, which are not shown here
_READY_SECONDS, _FLUSH_SECONDS = 60.0, 20.0
_SWAP_SECONDS, _AFTER_SECONDS = 30.0, 3.0  # until the server has swapped at most; under load after that
_FEW = 600  # samples of which more are held out, as a comparison of numbers needs 150
_CHECKED = 200  # samples whose answers are checked during the retraining


@dataclass(frozen=True)
class StepOutcome:
    """The outcome of a step.

    Attributes:
        sentence: what was found, the key metric first.
        ok: True if it passes its gate.
        metrics: name_unit to value, for the result.
        result: of the command that the step is about, for its plot and its page.
    """

    sentence: str
    ok: bool = True
    metrics: Mapping[str, float] = field(default_factory=dict)
    result: Result | None = None


class Lifecycle:
    """A tour under way. Everything is in its folder: runs, registry, events, results, logs.

    Args:
        cfg: the composed config.
        folder: the tour's own run folder.
        ends: closes what was started, in any case.
    """

    def __init__(self, cfg: DictConfig, folder: RunFolder, ends: ExitStack) -> None:
        self.cfg, self.folder, self._ends = cfg, folder, ends
        self.settings: Any = cfg.lifecycle
        self._places = (f"runs_dir={folder.path / 'runs'}", f"registry.root={folder.path / 'registry'}")
        self._events = f"events={folder.path / 'events'}"

    # Attributes are set by the steps in their order: reading one too early is an AttributeError, not a wrong value.

    def prepare_shards(self) -> StepOutcome:
        """Write the data as shards once, and report its facts."""
        return _build_outcome(self._run_typed("prepare"), "train_samples", "val_samples")

    def estimate_training(self) -> StepOutcome:
        """Estimate memory and time of the training, before it starts."""
        result = self._run_typed("estimate", f"estimate.probe_seconds={self.settings.probe_seconds}")
        return _build_outcome(result, "peak_memory_bytes", "time_s", prefix="estimated_")

    def train_model(self) -> StepOutcome:
        """Train, and compare the run with its estimate."""
        result = self._run_typed("train")
        self.run = Path(result.artifacts["run"])
        # The next steps start from the best checkpoint, which needs a validation.
        best = [name for name, value in result.metrics.items() if name.startswith("best_") and not math.isnan(value)]
        return _build_outcome(replace(result, ok=result.ok and bool(best)), *best)

    def profile_training(self) -> StepOutcome:
        """Find what bounds the training."""
        seconds = f"profile.seconds={self.settings.probe_seconds}"
        # Without remedies: trying them takes several times as long, and the tour changes nothing by them.
        result = self._run("profile", f"ref={self.run}", seconds, "profile.remedies=false")
        return _build_outcome(result, "headspace_ratio", "wait_percent")

    def compress_model(self) -> StepOutcome:
        """Compress to int8, kept only if it is faster and as accurate."""
        # The run's config brings its own way of compression, if it has one.
        result = self._run("compress", f"ref={self.run}", *([] if self.cfg.get("compress") else ["compress=int8"]))
        return _build_outcome(result, "kept", "speedup", "size_ratio", prefix="int8_")

    def export_champion(self) -> StepOutcome:
        """Export the servable with its proofs, and publish the first version of the registry, the champion."""
        from mlscale.versions.from_servable import publish_servable

        result = self._run("export", f"ref={self.run}")
        outcome = _build_outcome(result, "onnx_cpu_ms", "torch_latency_ratio")
        if not result.ok:
            return outcome
        servable, run = Path(result.artifacts["servable"]), RunFolder.open(self.run)
        self.first = publish_servable(self._build_registry(), servable, run=run, aliases=("champion",)).version
        self._champion = f"{self.first.name}@champion"
        return replace(outcome, sentence=f"{self.first.ref}: {result.sentence}")

    def serve_champion(self) -> StepOutcome:
        """Start the server as a process that follows the champion; check its answers against the servable's own."""
        ready = self.folder.path / "server.json"
        # Every sample is kept (sample_share=1.0), because the retraining learns from them.
        words = (f"ref={self._champion}", "port=0", self._events, "sample_share=1.0", f"ready_file={ready}")
        started = commands.start_in_background("serve", [*self._places, *words], self.folder.path / "logs")
        address = self._ends.enter_context(started).wait_until_ready(
            lambda: json.loads(ready.read_text()) if ready.is_file() else None, _READY_SECONDS, "starting"
        )
        self.url, self.servable = str(address["url"]), self._load_servable(self.first.ref)
        self.traffic, self.held_out = load_samples(self.cfg, self.servable, self.settings.traffic)
        side = (self.servable, self.held_out)
        served, client = compare_sides(side, side), self._send_all(self.held_out)
        return StepOutcome(
            f"{self.first.ref}, {served.metric.display_name} {_format_value(served, served.first)}, over HTTP, of "
            f"{client.requests:,} validation samples; {'; '.join(client.problems[:1]) or 'every answer is its own'}",
            not client.problems and set(client.versions) == {self.first.ref},
            {f"served_{served.metric.name}": served.first, "served_wrong": len(client.problems)},
        )

    def run_load_test(self) -> StepOutcome:
        """Run Locust, closed loop, with the servable's recorded requests, and compare with the objective."""
        terms = [f"slo.{name}={'null' if value is None else value}" for name, value in self.settings.slo.items()]
        load = (f"users={self.settings.users}", f"seconds={self.settings.load_seconds}", "warmup_s=1")
        result = self._run("loadtest", f"ref={self.url}", f"samples={self.first.payload}", *load, *terms)
        return _build_outcome(result, "p50_ms", "p99_ms", "requests_per_s", "requests", "failures")

    def send_shifted_samples(self) -> StepOutcome:
        """Send samples as production has them after the change, one request each: the model gets worse without an error
        of the server.
        """
        self.shift = choose_shift(self.servable, self.traffic)
        self.shifted = self.shift.apply_to(self.traffic)
        # Monitoring must not see the requests before this time.
        self.sent_since = datetime.now(UTC)
        self.client = self._send_all(self.shifted)
        # Answers equal the servable's: both metrics are computed from its outputs. Exchanged, 'better' was before.
        change = compare_sides((self.servable, self.shifted), (self.servable, self.traffic))
        after, before = (_format_value(change, value) for value in (change.first, change.second))
        return StepOutcome(
            f"{change.metric.display_name} {after}, of {self.client.requests:,} samples after a change "
            f"({self.shift.description}), {before} before; "
            + ("; ".join(self.client.problems[:1]) or "every request was answered"),
            change.p_better < _ALPHA and not self.client.problems,
            {f"shifted_traffic_{change.metric.name}": change.first, "shifted_requests": self.client.requests},
        )

    def check_alert(self) -> StepOutcome:
        """Check that drift is seen without labels, and that degradation is reported once when they come in."""
        file, task_type = self.folder.path / "alerts.json", self.servable.task_type
        score = task_type.score.name
        since = (f"window.since={self.sent_since.isoformat()}", "alert.rules=[degradation]")
        words = (f"ref={self.first.ref}", self._events, *since, f"alert.command=[tee,-a,{file}]")
        self._wait_for_events()
        unlabelled = self._run("monitor", *words, name="monitor-unlabelled")
        # Texts show by themselves how well they were predicted: the second look must not alert again.
        labels = task_type.format_labels(self.shifted.truth, self.servable.names) if task_type.needs_label else ()
        self.client.send_labels(labels)
        result = self._run("monitor", *words)
        alerts = re.findall(r'"status": "(\w+)"', file.read_text() if file.is_file() else "")
        inputs = unlabelled.details.get("drifted_inputs", ())
        return StepOutcome(
            f"{len(alerts)} alert{'s' * (len(alerts) != 1)} received; without labels, drift of: "
            f"{', '.join(inputs) or 'no input'}; with {len(labels):,} labels: {result.sentence}",
            unlabelled.metrics["drift"] == 1 and not result.ok and alerts == ["firing"] and not self.client.problems,
            {"alerts": len(alerts), "drifted_inputs": len(inputs), f"monitored_{score}": result.metrics[score]},
            result,
        )

    def retrain_champion(self) -> StepOutcome:
        """Run one retraining cycle while a client sends requests: the gate promotes the challenger or ends the tour."""
        passes, count = self.settings.retrain_passes, len(self.shifted.raw)
        # Few: after the swap the client waits until the new version's answers to all of them are computed here.
        self.client = self._create_client(self.shifted.select_first(_CHECKED))
        # A stack inside the tour's: `check_swap` closes it earlier, a tour that stops before with everything else.
        self._sending = self._ends.enter_context(ExitStack())
        self._sending.enter_context(self.client.keep_sending())
        result = self._run(
            "retrain",
            f"ref={self._champion}",
            self._events,
            f"passes={'null' if passes is None else passes}",
            f"gate.alpha={_ALPHA}",
            # On the original data: 3 %, or the margin of error where validation samples are so few.
            f"gate.max_drop={max(_MAX_DROP, round(1 / math.sqrt(len(self.held_out.raw)), 3)):g}",
            f"window.held_out={0.3 if count >= _FEW else 0.5}",
            # What was sent before the change has no labels. Where none is needed, it would be learned from, too, and
            # with it the validation samples of the proofs.
            f"window.max_samples={count}",
            "snapshot=false",
        )
        names = [name for name in result.metrics if re.fullmatch("(champion|challenger)_window_.*", name)]
        return _build_outcome(result, *names, "window_p_better", "original_difference", prefix="gate_")

    def check_swap(self) -> StepOutcome:
        """Check that the server has followed the alias: nothing was dropped or wrong, and the new version is better."""
        champion = self._build_registry().resolve_version(self._champion)
        client, end = self.client, time.monotonic() + _SWAP_SECONDS
        # A Counter returns 0 for a version that has not answered yet.
        while not client.versions[champion.ref] and time.monotonic() < end:
            time.sleep(0.05)
        # Errors after the swap count as well as those before it.
        time.sleep(_AFTER_SECONDS)
        self._sending.close()
        now, samples = self._load_servable(champion.ref), self.shift.apply_to(self.held_out)
        # Proofs are computed from the version's own outputs, which the server must give, too.
        unseen = self._send_all(samples)
        shifted = compare_sides((self.servable, samples), (now, samples))
        dropped, wrong, name = client.dropped + unseen.dropped, client.wrong + unseen.wrong, shifted.metric.name
        metrics = {
            "swap_requests": client.requests,
            "swap_dropped": len(dropped),
            "swap_wrong": len(wrong),
            f"shifted_{name}_before": shifted.first,
            f"shifted_{name}": shifted.second,
            "shifted_p_better": shifted.p_better,
        }
        # Fewer validation samples than a comparison needs can't prove it; the gate has, on held-out production.
        is_better = shifted.p_better < _ALPHA or (shifted.samples < shifted.needed and shifted.difference > 0)
        swapped = champion.ref != self.first.ref and all(client.versions[ref] for ref in (self.first.ref, champion.ref))
        return StepOutcome(
            f"{len(dropped)} dropped, {len(wrong)} wrong of {client.requests:,} requests, "
            + (f"{self.first.ref} → {champion.ref}; " if swapped else f"{champion.ref} does not answer; ")
            + "; ".join([f"{_format_change(shifted)} on samples not sent before", *dropped[:1], *wrong[:1]]),
            swapped and is_better and not dropped and not wrong,
            metrics,
        )

    def _run(self, command: str, *words: str, name: str = "") -> Result:
        """Run a command in the tour's folder; keep its result, as `name` if it runs again."""
        result = commands.run_command(command, [*self._places, *words])
        self.folder.write_result(name or command, result.as_dict(), result.figures, result.steps)
        return result

    def _run_typed(self, command: str, *words: str) -> Result:
        """Run a command that trains, with the typed overrides but those of the tour itself, which it does not know."""
        typed = [
            word
            for word in self.cfg.derived.overrides or []
            if re.split("[=@.]", word.lstrip("+~"))[0] not in _LIFECYCLE_KEYS
        ]
        return self._run(command, *typed, *words, "snapshot=false")

    def _build_registry(self) -> LocalRegistry:
        from mlscale.assembly.build import build

        registry: LocalRegistry = build(self.cfg.registry, "registry")
        return registry

    def _load_servable(self, version: str) -> Servable:
        from mlscale.export.servable import load

        return load(self._build_registry().resolve_version(version).payload)

    def _create_client(self, samples: LabelledSamples) -> CheckedClient:
        return CheckedClient(self.url, samples.raw, self._load_servable, self.servable)

    def _send_all(self, samples: LabelledSamples) -> CheckedClient:
        client = self._create_client(samples)
        client.send_all()
        return client

    def _wait_for_events(self) -> None:
        """Wait until the server has written the events of all that was sent: monitoring reads files."""
        from mlscale.events.store import EventStore

        store, end = EventStore(self.folder.path / "events"), time.monotonic() + _FLUSH_SECONDS
        missing = len(self.shifted.raw)
        while len(store.read(self.first.name, since=self.sent_since)) < missing and time.monotonic() < end:
            time.sleep(0.1)


def compare_sides(first: tuple[Servable, LabelledSamples], second: tuple[Servable, LabelledSamples]) -> OverallChange:
    """Compare two sides, each a model and the samples that it predicts, in the same order, by the paired comparison of
    the task type: two models on the same samples, or one on samples before and after a change."""
    from mlscale.retrain.gate.overall_change import compare_overall
    from mlscale.retrain.gate.paired_columns import collect_paired_columns

    # Each side by itself: the truth of the two differs where labels have changed.
    before, after = (
        collect_paired_columns(servable, servable, samples.iterate_batches()) for servable, samples in (first, second)
    )
    # Samples are those that the first model takes.
    assert before is not None
    assert after is not None
    columns = replace(before, second=after.first)
    return compare_overall(first[0].task_type, columns, alpha=_ALPHA, tolerance=_TOLERANCE)


def _format_value(change: OverallChange, value: float) -> str:
    return f"{value:.2%}" if change.metric.is_share else format_number(value)


def _format_change(change: OverallChange) -> str:
    first, second = (_format_value(change, value) for value in (change.first, change.second))
    p = f" (p {change.p_better:.1g})" if change.samples >= change.needed else ""
    return f"{change.metric.display_name} {first} → {second}{p}"


def _build_outcome(result: Result, *names: str, prefix: str = "") -> StepOutcome:
    """Return the outcome of a step that is a command: its sentence, gate, page, and some of its metrics."""
    metrics = {f"{prefix}{name}": result.metrics[name] for name in names if name in result.metrics}
    return StepOutcome(result.sentence, result.ok, metrics, result)
