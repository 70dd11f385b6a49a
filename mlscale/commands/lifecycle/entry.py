"""The whole lifecycle as one command: from data to a model that is retrained when production changes, and swapped."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mlscale import commands
from mlscale.assembly.build import build
from mlscale.commands.lifecycle.production import (
    ALPHA,
    CheckedClient,
    LabelledSamples,
    check_lifecycle,
    choose_shift,
    compare_sides,
    format_change,
    format_value,
    load_samples,
)
from mlscale.errors import Exit, MLScaleError
from mlscale.events.store import EventStore
from mlscale.export.required_extras import require_extra
from mlscale.export.servable import load
from mlscale.launch.start_notices import print_masked_lines
from mlscale.report import ReportStep, Result, format_duration, save_result
from mlscale.runs.folder import RunFolder
from mlscale.runs.host.processes import raise_on_terminate
from mlscale.secrets.config_secrets import protect_config
from mlscale.secrets.mask import Masker
from mlscale.versions.from_servable import publish_servable

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.export.servable import Servable
    from mlscale.versions import LocalRegistry

_OWN_OVERRIDE = re.compile(r"[+~]*(lifecycle|runs_dir|output|log_format|snapshot)([=@.]|$)")  # for the tour alone
_MAX_DROP = 0.03
_READY_SECONDS, _FLUSH_SECONDS = 60.0, 20.0
_SWAP_SECONDS, _AFTER_SECONDS = 30.0, 3.0  # until the server has swapped at most; under load after that
_FEW = 600  # samples of which more are held out, as a comparison of numbers needs 150
_CHECKED = 200  # samples whose answers are checked during the retraining


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
    overrides, plain, cfg = list(cfg.derived.overrides or []), cfg.copy(), cfg.copy()
    plain.derived = dict.fromkeys(plain.derived)
    folder = RunFolder.create(
        cfg.runs_dir,
        f"{cfg.name}-lifecycle",
        command="lifecycle",
        config_yaml=OmegaConf.to_yaml(OmegaConf.create(protect_config(plain)[0])),
        seed=cfg.seed,
        overrides=overrides,
        tags=list(cfg.tags),
        notes=cfg.notes,
        masker=masker,
    )
    # A registry of its own: a tour must not promote anything in the user's.
    cfg.registry.root = str(folder.path / "registry")
    tour, is_complete, ending = Tour(folder, list(STEPS), masker), False, "failed"
    try:
        # SIGTERM raises, so that the stack closes the server and the client.
        with raise_on_terminate(), ExitStack() as ends:
            lifecycle = Lifecycle(cfg, folder, ends, overrides)
            is_complete = all(tour.take_step(partial(step, lifecycle)) for step in STEPS.values())
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
            overrides=overrides,
            steps=tour.list_steps(),
        )
        result = save_result(result, folder)
        # In `finally`: a tour that failed is sealed, too, with the steps that it has taken.
        folder.seal_run(ending, metrics=result.metrics, sentence=result.sentence)
        print_masked_lines([f"page    {result.artifacts['page']}"], masker)
    return result


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

    def take_step(self, act: Callable[[], Result]) -> bool:
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
            outcome = Result("", False, why)
            raise
        finally:
            seconds = time.perf_counter() - start
            line = f"{prefix}{'' if outcome.ok else 'STOP  '}{outcome.sentence}  ({format_duration(seconds)})"
            # Before it is printed: where nothing reads the output any more printing fails, and the page must have it.
            plot = next(iter(outcome.figures), None)
            page = outcome.command and f"{outcome.command}.html"
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


class Lifecycle:
    """A tour under way. Everything is in its folder: runs, registry, events, results, logs.

    Args:
        cfg: the composed config.
        folder: the tour's own run folder.
        ends: closes what was started, in any case.
        overrides: as typed.
    """

    def __init__(self, cfg: DictConfig, folder: RunFolder, ends: ExitStack, overrides: Sequence[str]) -> None:
        self.cfg, self.folder, self._ends = cfg, folder, ends
        # Without those of the tour itself, which a training does not know.
        self._typed = [*(word for word in overrides if not _OWN_OVERRIDE.match(word)), "snapshot=false"]
        self.settings: Any = cfg.lifecycle
        self._registry: LocalRegistry = build(cfg.registry, "registry")
        self._places = (f"runs_dir={folder.path / 'runs'}", f"registry.root={folder.path / 'registry'}")
        self._events = f"events={folder.path / 'events'}"

    # Attributes are set by the steps in their order: reading one too early is an AttributeError, not a wrong value.

    def prepare_shards(self) -> Result:
        """Write the data as shards once, and report its facts."""
        return _select_metrics(self._run("prepare", *self._typed), "train_samples", "val_samples")

    def estimate_training(self) -> Result:
        """Estimate memory and time of the training, before it starts."""
        result = self._run("estimate", *self._typed, f"estimate.probe_seconds={self.settings.probe_seconds}")
        return _select_metrics(result, "peak_memory_bytes", "time_s", prefix="estimated_")

    def train_model(self) -> Result:
        """Train, and compare the run with its estimate."""
        result = self._run("train", *self._typed)
        self.run = Path(result.artifacts["run"])
        # The next steps start from the best checkpoint, which needs a validation.
        best = [name for name, value in result.metrics.items() if name.startswith("best_") and not math.isnan(value)]
        return _select_metrics(replace(result, ok=result.ok and bool(best)), *best)

    def profile_training(self) -> Result:
        """Find what bounds the training."""
        seconds = f"profile.seconds={self.settings.probe_seconds}"
        # Without remedies: trying them takes several times as long, and the tour changes nothing by them.
        result = self._run("profile", f"ref={self.run}", seconds, "profile.remedies=false")
        return _select_metrics(result, "headspace_ratio", "wait_percent")

    def compress_model(self) -> Result:
        """Compress to int8, kept only if it is faster and as accurate."""
        # The run's config brings its own way of compression, if it has one.
        result = self._run("compress", f"ref={self.run}", *([] if self.cfg.get("compress") else ["compress=int8"]))
        return _select_metrics(result, "kept", "speedup", "size_ratio", prefix="int8_")

    def export_champion(self) -> Result:
        """Export the servable with its proofs, and publish the first version of the registry, the champion."""
        result = self._run("export", f"ref={self.run}")
        outcome = _select_metrics(result, "onnx_cpu_ms", "torch_latency_ratio")
        if not result.ok:
            return outcome
        servable, run = Path(result.artifacts["servable"]), RunFolder.open(self.run)
        self.first = publish_servable(self._registry, servable, run=run, aliases=("champion",)).version
        self._champion = f"{self.first.name}@champion"
        return replace(outcome, sentence=f"{self.first.ref}: {result.sentence}")

    def serve_champion(self) -> Result:
        """Start the server as a process that follows the champion; check its answers against the servable's own."""
        ready = self.folder.path / "server.json"
        # Every sample is kept (sample_share=1.0), because the retraining learns from them.
        words = (f"ref={self._champion}", "port=0", self._events, "sample_share=1.0", f"ready_file={ready}")
        started = commands.start_in_background("serve", [*self._places, *words], self.folder.path / "logs")
        self._server = self._ends.enter_context(started)
        address = self._server.wait_until_ready(
            lambda: json.loads(ready.read_text()) if ready.is_file() else None, _READY_SECONDS, "starting"
        )
        self.url, self.servable = str(address["url"]), self._load_servable(self.first.ref)
        self.traffic, self.held_out = load_samples(self.cfg, self.servable, self.settings.traffic)
        side = (self.servable, self.held_out)
        served, client = compare_sides(side, side), self._create_client(self.held_out).send_all()
        return Result(
            "",
            not client.problem and set(client.versions) == {self.first.ref},
            f"{self.first.ref}, {served.metric.display_name} {format_value(served, served.first)}, over HTTP, of "
            f"{client.requests:,} validation samples; {client.problem or 'every answer is its own'}",
            {f"served_{served.metric.name}": served.first, "served_wrong": len(client.dropped + client.wrong)},
        )

    def run_load_test(self) -> Result:
        """Run Locust, closed loop, with the servable's recorded requests, and compare with the objective."""
        terms = [f"slo.{name}={'null' if value is None else value}" for name, value in self.settings.slo.items()]
        load = (f"users={self.settings.users}", f"seconds={self.settings.load_seconds}", "warmup_s=1")
        result = self._run("loadtest", f"ref={self.url}", f"samples={self.first.payload}", *load, *terms)
        return _select_metrics(result, "p50_ms", "p99_ms", "requests_per_s", "requests", "failures")

    def send_shifted_samples(self) -> Result:
        """Send samples as production has them after the change, one request each: no error shows that they differ."""
        self.shift = choose_shift(self.servable, self.traffic)
        self.shifted = self.shift.apply_to(self.traffic)
        # Monitoring must not see the requests before this time.
        self.sent_since = datetime.now(UTC)
        self.client = self._create_client(self.shifted).send_all()
        # Answers equal the servable's: both metrics are computed from its outputs. Exchanged, 'better' was before.
        change = compare_sides((self.servable, self.shifted), (self.servable, self.traffic))
        after, before = (format_value(change, value) for value in (change.first, change.second))
        return Result(
            "",
            change.p_better < ALPHA and not self.client.problem,
            f"{change.metric.display_name} {after}, of {self.client.requests:,} samples after a change "
            f"({self.shift.description}), {before} before; {self.client.problem or 'every request was answered'}",
            {f"shifted_traffic_{change.metric.name}": change.first, "shifted_requests": self.client.requests},
        )

    def check_alert(self) -> Result:
        """Check that drift is seen without labels, and that degradation is reported once when they come in."""
        file, task_type = self.folder.path / "alerts.json", self.servable.task_type
        score = task_type.score.name
        since = (f"window.since={self.sent_since.isoformat()}", "alert.rules=[degradation]")
        words = (f"ref={self.first.ref}", self._events, *since, f"alert.command=[tee,-a,{file}]")
        # Monitoring reads files: all that was sent must be in them.
        store, sent = EventStore(self.folder.path / "events"), len(self.shifted.raw)
        self._server.wait_until_ready(
            lambda: len(store.read(self.first.name, since=self.sent_since)) >= sent or None, _FLUSH_SECONDS, "recording"
        )
        unlabelled = self._run("monitor", *words, name="monitor-unlabelled")
        # Texts show by themselves how well they were predicted: the second look must not alert again.
        labels = task_type.format_labels(self.shifted.truth, self.servable.names) if task_type.needs_label else ()
        self.client.send_labels(labels)
        result = self._run("monitor", *words)
        alerts = re.findall(r'"status": "(\w+)"', file.read_text() if file.is_file() else "")
        inputs = unlabelled.details.get("drifted_inputs", ())
        return replace(
            result,
            sentence=f"{len(alerts)} alert{'s' * (len(alerts) != 1)} received; without labels, drift of: "
            f"{', '.join(inputs) or 'no input'}; with {len(labels):,} labels: {result.sentence}",
            ok=unlabelled.metrics["drift"] == 1 and not result.ok and alerts == ["firing"] and not self.client.problem,
            metrics={"alerts": len(alerts), "drifted_inputs": len(inputs), f"monitored_{score}": result.metrics[score]},
        )

    def retrain_champion(self) -> Result:
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
            f"gate.alpha={ALPHA}",
            # On the original data: 3 %, or the margin of error where validation samples are so few.
            f"gate.max_drop={max(_MAX_DROP, round(1 / math.sqrt(len(self.held_out.raw)), 3)):g}",
            f"window.held_out={0.3 if count >= _FEW else 0.5}",
            # What was sent before the change has no labels. Where none is needed, it would be learned from, too, and
            # with it the validation samples of the proofs.
            f"window.max_samples={count}",
            # The tour's own labels are right, however wrong the champion has become.
            "gate.min_kappa=null",
            "snapshot=false",
        )
        names = [name for name in result.metrics if re.fullmatch("(champion|challenger)_window_.*", name)]
        return _select_metrics(result, *names, "window_p_better", "original_difference", prefix="gate_")

    def check_swap(self) -> Result:
        """Check that the server has followed the alias: nothing was dropped or wrong, and the new version is better."""
        champion = self._registry.resolve_version(self._champion)
        client, end = self.client, time.monotonic() + _SWAP_SECONDS
        # A Counter returns 0 for a version that has not answered yet.
        while not client.versions[champion.ref] and time.monotonic() < end:
            time.sleep(0.05)
        # Errors after the swap count as well as those before it.
        time.sleep(_AFTER_SECONDS)
        self._sending.close()
        now, samples = self._load_servable(champion.ref), self.shift.apply_to(self.held_out)
        # Proofs are computed from the version's own outputs, which the server must give, too.
        unseen = self._create_client(samples).send_all()
        shifted = compare_sides((self.servable, samples), (now, samples))
        dropped, wrong, name = client.dropped + unseen.dropped, client.wrong + unseen.wrong, shifted.metric.name
        # Fewer validation samples than a comparison needs can't prove it; the gate has, on held-out production.
        is_better = shifted.p_better < ALPHA or (shifted.samples < shifted.needed and shifted.difference > 0)
        swapped = champion.ref != self.first.ref and all(client.versions[ref] for ref in (self.first.ref, champion.ref))
        return Result(
            "",
            swapped and is_better and not dropped and not wrong,
            f"{len(dropped)} dropped, {len(wrong)} wrong of {client.requests:,} requests, "
            + (f"{self.first.ref} → {champion.ref}; " if swapped else f"{champion.ref} does not answer; ")
            + "; ".join([f"{format_change(shifted)} on new samples", *dropped[:1], *wrong[:1]]),
            {
                "swap_requests": client.requests,
                "swap_dropped": len(dropped),
                "swap_wrong": len(wrong),
                f"shifted_{name}_before": shifted.first,
                f"shifted_{name}": shifted.second,
                "shifted_p_better": shifted.p_better,
            },
        )

    def _run(self, command: str, *words: str, name: str = "") -> Result:
        """Run a command in the tour's folder; keep its result, as `name` if it runs again."""
        result = commands.run_command(command, [*self._places, *words])
        self.folder.write_result(name or command, result.as_dict(), result.figures, result.steps)
        return result

    def _load_servable(self, version: str) -> Servable:
        return load(self._registry.resolve_version(version).payload)

    def _create_client(self, samples: LabelledSamples) -> CheckedClient:
        return CheckedClient(self.url, samples.raw, self._load_servable, self.servable)


def _select_metrics(result: Result, *names: str, prefix: str = "") -> Result:
    """Return the outcome of a step that is a command: its sentence, gate, page, and some of its metrics."""
    metrics = {f"{prefix}{name}": result.metrics[name] for name in names if name in result.metrics}
    return replace(result, metrics=metrics)


STEPS = {
    "prepare": Lifecycle.prepare_shards,
    "estimate": Lifecycle.estimate_training,
    "train": Lifecycle.train_model,
    "profile": Lifecycle.profile_training,
    "compress": Lifecycle.compress_model,
    "export": Lifecycle.export_champion,
    "serve": Lifecycle.serve_champion,
    "load test": Lifecycle.run_load_test,
    "shift": Lifecycle.send_shifted_samples,
    "alert": Lifecycle.check_alert,
    "retrain": Lifecycle.retrain_champion,
    "swap": Lifecycle.check_swap,
}
