"""The steps of a tour, each a command of mlscale and what must be true of its result."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlscale import commands
from mlscale.commands.lifecycle.production import CheckedClient, LabelledSamples, load_samples, receive_alerts
from mlscale.commands.lifecycle.shifts import Shift, fit_shift
from mlscale.report import Result, format_duration, format_number
from mlscale.runs.folder import RunFolder

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.export.servable import Servable
    from mlscale.retrain.gate.overall_change import OverallChange
    from mlscale.versions import LocalRegistry, Version

_LIFECYCLE_KEYS = ("lifecycle", "runs_dir", "output", "log_format", "snapshot")  # what was typed for the tour alone
_ALPHA, _MAX_DROP = 0.05, 0.03
_TOLERANCE = 0.1  # of flips, which are not shown here
_READY_SECONDS, _FLUSH_SECONDS = 60.0, 20.0
_SWAP_SECONDS, _AFTER_SECONDS = 30.0, 3.0  # until the server has swapped at most; under load after that
_LABELS, _MOST_LABELS = 100, 300  # sent at once, and by which monitoring must have found the degradation
_CHECKED = 200  # samples whose answers are checked during the retraining
_LISTED_NAME = re.compile(r'"([^"]*)"|([^,"]+)')


@dataclass(frozen=True)
class StepOutcome:
    """The outcome of a step.

    Attributes:
        sentence: what was found, the key metric first.
        ok: True if it passes its gate.
        metrics: name_unit to value, for the result.
        result: of the command that the step is about, for its plot.
        page: the command's page, next to the tour's own.
    """

    sentence: str
    ok: bool = True
    metrics: Mapping[str, float] = field(default_factory=dict)
    result: Result | None = None
    page: str = ""


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

    # Set by the steps in their order: reading one too early is an AttributeError, not a wrong value.
    run: Path
    first: Version
    """The version that was trained; the champion until the retraining."""
    servable: Servable
    traffic: LabelledSamples
    held_out: LabelledSamples
    shift: Shift
    shifted: LabelledSamples
    """Those that production sends after the change."""
    client: CheckedClient
    """Sends what production sends, and checks each answer."""

    def prepare_shards(self) -> StepOutcome:
        """Write the data as shards once, and report its facts."""
        result = self._run_typed("prepare")
        samples = result.metrics["train_samples"] + result.metrics["val_samples"]
        return _build_outcome(result, {"samples": samples})

    def estimate_training(self) -> StepOutcome:
        """Estimate memory and time of the training, before it starts."""
        result = self._run_typed("estimate", f"estimate.probe_seconds={self.settings.probe_seconds}")
        self._estimated_s = result.metrics["time_s"]
        return _build_outcome(result, _select_metrics(result, "estimated_", "peak_memory_bytes", "time_s"))

    def train_model(self) -> StepOutcome:
        """Train, and compare the run with its estimate."""
        result = self._run_typed("train")
        self.run = Path(result.artifacts["run"])
        # From the run, not the config: the metric may have been chosen during the training.
        metric, seconds = RunFolder.open(self.run).run["metric"], result.metrics["time_s"]
        best = result.metrics.get(f"best_{metric}", math.nan)
        times = f"{format_duration(seconds)}, estimated {format_duration(self._estimated_s)}"
        return _build_outcome(
            # The next steps start from the best checkpoint, which needs a validation.
            replace(result, ok=result.ok and not math.isnan(best)),
            {f"train_{metric}": best, "estimate_ratio": self._estimated_s / seconds},
            f"{result.sentence}; {times}",
        )

    def profile_training(self) -> StepOutcome:
        """Find what bounds the training."""
        seconds = f"profile.seconds={self.settings.probe_seconds}"
        # Without remedies: trying them takes several times as long, and the tour changes nothing by them.
        result = self._run("profile", f"ref={self.run}", seconds, "profile.remedies=false")
        return _build_outcome(result, _select_metrics(result, "", "headspace_ratio", "wait_percent"))

    def compress_model(self) -> StepOutcome:
        """Compress to int8, kept only if it is faster and as accurate."""
        # The run's config brings its own way of compression, if it has one.
        result = self._run("compress", f"ref={self.run}", *([] if self.cfg.get("compress") else ["compress=int8"]))
        name = _find_metric(result, "int8_val/")
        shown = ("kept", "speedup", f"{name}_drop", f"{name}_relative_drop", "size_ratio")
        return _build_outcome(result, _select_metrics(result, "int8_", *shown))

    def export_champion(self) -> StepOutcome:
        """Export the servable with its proofs, and publish the first version of the registry, the champion."""
        from mlscale.versions.from_servable import publish_servable

        result = self._run("export", f"ref={self.run}")
        if not result.ok:
            return _build_outcome(result, {})
        servable, run = Path(result.artifacts["servable"]), RunFolder.open(self.run)
        self.first = publish_servable(self._build_registry(), servable, run=run, aliases=("champion",)).version
        name = _find_metric(result, "onnx_val/")
        metrics = {
            f"servable_{name}": result.metrics[f"onnx_val/{name}"],
            "servable_cpu_ms": result.metrics["onnx_cpu_ms"],
            "torch_latency_ratio": result.metrics["torch_latency_ratio"],
        }
        return _build_outcome(result, metrics, f"{self.first.ref}: {result.sentence}")

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
        served, client = compare_sides(side, side), self._create_client(self.held_out)
        client.send_all()
        same = (
            f"no number off by more than {client.largest:.0e}" if client.largest else "every number bitwise identical"
        )
        return StepOutcome(
            f"{self.first.ref}, {served.metric.display_name} {self._format_value(served, served.first)}, over HTTP, of "
            f"{client.requests:,} validation samples; {'; '.join(client.problems[:1]) or same}",
            not client.problems and set(client.versions) == {self.first.ref},
            {
                f"served_{served.metric.name}": served.first,
                "served_max_abs_error": client.largest,
                "served_wrong": len(client.problems),
            },
        )

    def run_load_test(self) -> StepOutcome:
        """Run Locust, closed loop, with the servable's recorded requests, and compare with the objective."""
        terms = [f"slo.{name}={'null' if value is None else value}" for name, value in self.settings.slo.items()]
        load = (f"users={self.settings.users}", f"seconds={self.settings.load_seconds}", "warmup_s=1")
        result = self._run("loadtest", f"ref={self.url}", f"samples={self.first.payload}", *load, *terms)
        return _build_outcome(
            result, _select_metrics(result, "", "p50_ms", "p99_ms", "requests_per_s", "requests", "failures")
        )

    def send_shifted_samples(self) -> StepOutcome:
        """Send samples as production has them after the change, one request each: the model gets worse without an error
        of the server.
        """
        self.shift = fit_shift(str(self.settings.shift), self.servable, self.traffic)
        self.shifted = self.shift.apply_to(self.traffic)
        # Monitoring must not see the requests before this time.
        self.sent_since = datetime.now(UTC).isoformat()
        self.client = self._create_client(self.shifted)
        self.client.send_all()
        # Answers equal the servable's: both metrics are computed from its outputs. Exchanged, 'better' was before.
        change = compare_sides((self.servable, self.shifted), (self.servable, self.traffic))
        after, before = (self._format_value(change, value) for value in (change.first, change.second))
        return StepOutcome(
            f"{change.metric.display_name} {after}, of {self.client.requests:,} "
            f"{'labels' if self.shift.is_concept else 'samples'} after '{self.shift.name}' "
            f"({self.shift.description}), {before} before; "
            + ("; ".join(self.client.problems[:1]) or "every request was answered"),
            change.p_better < _ALPHA and not self.client.problems,
            {f"shifted_traffic_{change.metric.name}": change.first, "shifted_requests": self.client.requests},
        )

    def check_alert(self) -> StepOutcome:
        """Check that drift is seen at once, unless inputs stay, and that degradation is reported once to a receiver
        when labels come in.
        """
        url, alerts = self._ends.enter_context(receive_alerts())
        since = (f"window.since={self.sent_since}", "alert.rules=[degradation]", f"alert.webhook={url}")
        words = (f"ref={self.first.ref}", self._events, *since)
        self._wait_for_events()
        # In this order: without labels only drift is seen, with them degradation, and the last must not alert again.
        unlabelled = self._run("monitor", *words, name="monitor-unlabelled")
        result, sent = self._find_degradation(words, unlabelled)
        last = self._run("monitor", *words, name="monitor-again")
        inputs, is_drift = unlabelled.details.get("drifted_inputs", ()), unlabelled.metrics["drift"] == 1
        # Exactly one alert after all checks: an incident is reported once.
        once = [alert.get("status") for alert in alerts] == ["firing"]
        score = self.servable.task_type.score.name
        now, before = (format_number(result.metrics.get(name, math.nan)) for name in (score, f"reference_{score}"))
        metrics = {
            "alerts": len(alerts),
            "drifted_inputs": len(inputs),
            "labels_to_alert": sent,
            f"monitored_{score}": last.metrics[score],
        }
        return StepOutcome(
            f"{len(alerts)} alert{'s' * (len(alerts) != 1)} received; without labels "
            f"{'drift' if is_drift else 'no drift'} was seen, of inputs: {', '.join(inputs) or 'none'}; with "
            f"{sent:,} labels degradation was {'not ' * result.ok}found: {score.replace('_', ' ')} {now}, reference "
            f"{before}",
            (not inputs if self.shift.is_concept else is_drift) and not result.ok and once,
            metrics | _select_metrics(unlabelled, "", "drifted_columns"),
            # Of the check that the sentence is about: the last one has more labels.
            result,
            "monitor.html",
        )

    def stop_poisoned_cycle(self) -> StepOutcome:
        """Run a retraining cycle on labels that contradict the earlier ones: the gate must stop it, as poisoned labels
        look the same.
        """
        self._keep_sending()
        result = self._run_cycle(name="retrain-stopped")
        # The next step types the fix of the gate's message.
        suggested = read_suggested_classes(result.sentence)
        named = [name for name in self.shift.relabelled if name in suggested]
        compared = _select_metrics(result, "stopped_", "original_difference")
        return StepOutcome(
            f"{' and '.join(named) or 'nothing'} named; {result.sentence}",
            # With two classes, and for numbers, no class is left that stays what it was: none is named.
            bool(compared) and not result.ok and len(named) == len(self.shift.relabelled),
            compared,
            result,
            "retrain-stopped.html",
        )

    def retrain_champion(self) -> StepOutcome:
        """Run one retraining cycle while a client sends requests: the gate promotes the challenger, or stops the tour.
        Where the meaning of labels has changed, a person has confirmed it.
        """
        from mlscale.retrain.gate.gate_limits import format_name_list

        confirmed = ""
        if self.shift.is_concept:
            relabelled = format_name_list(self.shift.relabelled).strip("'")
            confirmed = f"gate.relabelled={relabelled}" if self.shift.relabelled else "gate.old=false"
            # At once: the pause after a cycle would be a day.
            result = self._run_cycle(confirmed, "force=true")
        else:
            self._keep_sending()
            result = self._run_cycle()
        names = [name for name in result.metrics if re.fullmatch("(champion|challenger)_window_.*", name)]
        metrics = _select_metrics(result, "gate_", *names, "window_p_better", "original_difference")
        typed = f"with {confirmed}, as a person has confirmed the change; " if confirmed else ""
        return _build_outcome(result, metrics, typed + result.sentence)

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
        unseen = self._create_client(samples)
        unseen.send_all()
        shifted, original = compare_sides((self.servable, samples), (now, samples)), self._compare_on_original(now)
        dropped, wrong = client.dropped + unseen.dropped, client.wrong + unseen.wrong
        name = shifted.metric.name
        metrics = {
            "swap_requests": client.requests,
            "swap_dropped": len(dropped),
            "swap_wrong": len(wrong),
            "swap_checked": sum(client.versions.values()),
            f"shifted_{name}_before": shifted.first,
            f"shifted_{name}": shifted.second,
            "shifted_p_better": shifted.p_better,
        }
        proofs = f"{self._format_change(shifted)} on shifted validation samples not sent before"
        if original is not None:
            proofs += f", {self._format_change(original)} on the original ones"
            proofs += f" without {' and '.join(self.shift.relabelled)}" if self.shift.relabelled else ""
            metrics |= {
                f"original_{name}_before": original.first,
                f"original_{name}": original.second,
                "original_difference_low": original.low,
            }
        swapped = champion.ref != self.first.ref and all(client.versions[ref] for ref in (self.first.ref, champion.ref))
        # The end of the interval, as in the gate: the measured difference alone would prove nothing.
        is_proven = shifted.p_better < _ALPHA and (original is None or original.low >= -self._max_drop)
        return StepOutcome(
            f"{len(dropped)} dropped, {len(wrong)} wrong of {client.requests:,} requests, "
            + (f"{self.first.ref} → {champion.ref}; " if swapped else f"{champion.ref} does not answer; ")
            + "; ".join([proofs, *dropped[:1], *wrong[:1]]),
            swapped and is_proven and not dropped and not wrong,
            metrics,
        )

    # Commands, and where they work.

    @property
    def _champion(self) -> str:
        return f"{self.first.name}@champion"

    @property
    def _events(self) -> str:
        return f"events={self.folder.path / 'events'}"

    @property
    def _places(self) -> tuple[str, str]:
        return f"runs_dir={self.folder.path / 'runs'}", f"registry.root={self.folder.path / 'registry'}"

    @property
    def _max_drop(self) -> float:
        """The most that a challenger may lose on the original data: 3 %, or the margin of error of a share where
        validation samples are so few that they could not show that."""
        return max(_MAX_DROP, round(1 / math.sqrt(len(self.held_out.raw)), 3))

    def _run(self, command: str, *words: str, name: str = "") -> Result:
        """Run a command in the tour's folder; keep its result, as `name` if it runs again."""
        result = commands.run_command(command, [*self._places, *words])
        self.folder.write_result(name or command, result.as_dict(), result.figures, result.steps)
        return result

    def _run_typed(self, command: str, *words: str) -> Result:
        """Run a command that trains, with the typed overrides."""
        # Keys of the tour itself are unknown to the commands that it runs.
        typed = [
            word
            for word in self.cfg.derived.overrides or []
            if re.split("[=@.]", word.lstrip("+~"))[0] not in _LIFECYCLE_KEYS
        ]
        return self._run(command, *typed, *words, "snapshot=false")

    def _run_cycle(self, *words: str, name: str = "") -> Result:
        passes = self.settings.retrain_passes
        return self._run(
            "retrain",
            f"ref={self._champion}",
            self._events,
            f"passes={'null' if passes is None else passes}",
            f"gate.alpha={_ALPHA}",
            f"gate.max_drop={self._max_drop:g}",
            # What was sent before the change has no labels. Where none is needed, it would be learned from, too, and
            # with it the validation samples of the proofs.
            f"window.max_samples={len(self.shifted.raw)}",
            *words,
            "snapshot=false",
            name=name,
        )

    def _build_registry(self) -> LocalRegistry:
        from mlscale.assembly.build import build

        registry: LocalRegistry = build(self.cfg.registry, "registry")
        return registry

    def _load_servable(self, version: str) -> Servable:
        from mlscale.export.servable import load

        return load(self._build_registry().resolve_version(version).payload)

    # Samples, labels and metrics.

    def _create_client(self, samples: LabelledSamples) -> CheckedClient:
        return CheckedClient(self.url, samples.raw, self._load_servable, self.servable)

    def _keep_sending(self) -> None:
        """Send what production sends now, until the swap."""
        # Few: after the swap the client waits until the new version's answers to all of them are computed here.
        self.client = self._create_client(LabelledSamples(self.shifted.raw[:_CHECKED], self.shifted.truth[:_CHECKED]))
        # A stack inside the tour's: `check_swap` closes it earlier, a tour that stops before with everything else.
        self._sending = self._ends.enter_context(ExitStack())
        self._sending.enter_context(self.client.keep_sending())

    def _find_degradation(self, words: Sequence[str], unlabelled: Result) -> tuple[Result, int]:
        """Send labels until monitoring finds the degradation, at most 300, and then the others; return that check, and
        the labels that it had."""
        task_type = self.servable.task_type
        if not task_type.needs_label:
            # Texts show by themselves how well they were predicted: the first check has found it.
            self.folder.write_result("monitor", unlabelled.as_dict(), unlabelled.figures, unlabelled.steps)
            return unlabelled, 0
        labels: list[Any] = task_type.format_labels(self.shifted.truth, self.servable.names)
        result, sent = unlabelled, 0
        # In lots: the fewer labels are needed, the earlier an alert comes.
        while sent < min(_MOST_LABELS, len(labels)) and (not sent or result.ok):
            self.client.send_labels(labels[sent : sent + _LABELS], sent)
            sent = min(sent + _LABELS, len(labels))
            result = self._run("monitor", *words)
        # The retraining learns from all of them.
        self.client.send_labels(labels[sent:], sent)
        return result, sent

    def _wait_for_events(self) -> None:
        """Wait until the server has written the events of all that was sent: monitoring reads files."""
        from mlscale.events.store import EventStore

        store, end = EventStore(self.folder.path / "events"), time.monotonic() + _FLUSH_SECONDS
        since = datetime.fromisoformat(self.sent_since)
        while len(store.read(self.first.name, since=since)) < len(self.shifted.raw) and time.monotonic() < end:
            time.sleep(0.1)

    def _compare_on_original(self, now: Servable) -> OverallChange | None:
        """Compare both versions on the original validation samples, without classes whose meaning has changed; None
        where it has for all."""
        if self.shift.is_concept and not self.shift.relabelled:
            return None
        names = self.servable.task_type.list_class_names(self.servable.names)
        without = sorted(names.index(name) for name in self.shift.relabelled)
        return compare_sides((self.servable, self.held_out), (now, self.held_out), without)

    def _format_value(self, change: OverallChange, value: float) -> str:
        # Of targets in different units an error over all of them has none.
        units = {target.unit for target in self.servable.names.targets}
        unit = units.pop() if len(units) == 1 else ""
        return f"{value:.2%}" if change.metric.is_share else f"{format_number(value)} {unit}".rstrip()

    def _format_change(self, change: OverallChange) -> str:
        first, second = (self._format_value(change, value) for value in (change.first, change.second))
        return f"{change.metric.display_name} {first} → {second} (p {change.p_better:.1g})"


def compare_sides(
    first: tuple[Servable, LabelledSamples], second: tuple[Servable, LabelledSamples], without: Sequence[int] = ()
) -> OverallChange:
    """Compare two sides, whose samples have the same order, by the paired comparison of the task type: two models on
    the same samples, or one on samples before and after a change.

    Args:
        first, second: a model, and the samples that it predicts.
        without: numbers of classes that do not count.
    """
    from mlscale.retrain.gate.overall_change import compare_overall
    from mlscale.retrain.gate.paired_columns import collect_paired_columns

    # Each side by itself: the truth of the two differs where labels have changed.
    before, after = (
        collect_paired_columns(servable, servable, samples.iterate_batches()) for servable, samples in (first, second)
    )
    # Samples are those that the first model takes, and shifts that it refuses are not chosen.
    assert before is not None
    assert after is not None
    columns = replace(before, second=after.first).select_classes(np.array(without, np.int64), first[0])
    return compare_overall(first[0].task_type, columns, alpha=_ALPHA, tolerance=_TOLERANCE)


def read_suggested_classes(sentence: str) -> list[str]:
    """Return the classes that the gate suggests to declare relabelled; empty where it suggests none."""
    suggested = re.search(r"gate\.relabelled='?\[(.*?)\]", sentence)
    # Not as YAML, where a class that is called no would be a truth value.
    return [quoted or plain for quoted, plain in _LISTED_NAME.findall(suggested[1])] if suggested else []


def _build_outcome(result: Result, metrics: Mapping[str, float], sentence: str = "") -> StepOutcome:
    """Return the outcome of a step that is a command: its sentence, gate and page."""
    return StepOutcome(sentence or result.sentence, result.ok, metrics, result, f"{result.command}.html")


def _select_metrics(result: Result, prefix: str, *names: str) -> dict[str, float]:
    """Return some metrics of a result, those that it has, under their names with a prefix."""
    return {f"{prefix}{name}": result.metrics[name] for name in names if name in result.metrics}


def _find_metric(result: Result, prefix: str) -> str:
    """Return the name of the task's metric in the result of a command, after a prefix."""
    return next(name.removeprefix(prefix) for name in result.metrics if name.startswith(prefix))
