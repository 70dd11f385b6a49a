"""Takes every recipe from training to a load-tested server, by the commands that a user types, and prints a table.

    python -m scripts.all_recipes [--recipes tabular text] [--steps 30] [--folder build/recipes]

Each recipe is trained for a few steps, exported, compressed (`compress=int8`), exported again, in int8 where that was
kept, served, sent one raw request, and load-tested. A step that fails is shown with its error, and ends its recipe.
A command may take `--limit` seconds by the wall clock: int8 of the GPT takes 70 s of a free core, and many times that
on a machine that is busy with other things.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlscale.loadtest.build_requests import build_requests, choose_protocol
from mlscale.loadtest.random_samples import generate_samples
from mlscale.loadtest.server_metadata import Credentials, request_model_metadata, send_once
from mlscale.report.text import format_size_change

ROOT = Path(__file__).resolve().parent.parent
SAME_MODEL = {"finetune"}
"""Recipes that train a model of another one, from its weights."""
STEPS = ("train", "export", "compress", "export int8", "serve", "request", "loadtest")
LIMIT_S = 1800.0


class StepError(Exception):
    """A step that failed; the message is the last of what it printed."""


@dataclass
class RecipeOutcome:
    """What became of a recipe.

    Attributes:
        recipe: its name.
        steps: of each step that was taken, in a few words.
        error: of the step that failed; '' where all went well.
    """

    recipe: str
    steps: dict[str, str]
    error: str = ""


def list_recipes() -> list[str]:
    """Return the names of the recipes that have a model of their own."""
    return sorted({path.stem for path in (ROOT / "recipes" / "recipe").glob("*.yaml")} - SAME_MODEL)


def run_command(folder: Path, *words: str, limit_s: float = LIMIT_S) -> dict[str, Any]:
    """Run `mlscale …` and return its result.

    Raises:
        StepError: it ended with another code than 0, or not within `limit_s`.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mlscale", *words, "output=json"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
        )
    except subprocess.TimeoutExpired as error:
        raise StepError(f"not done after {limit_s:g} s: --limit {2 * limit_s:g} allows more") from error
    if done.returncode:
        raise StepError(f"exit code {done.returncode}: " + " | ".join((done.stderr or done.stdout).splitlines()[-4:]))
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@contextmanager
def start_server(folder: Path, servable: str) -> Iterator[str]:
    """Serve a servable on a free port, and yield the URL; the server has ended after the block.

    Raises:
        StepError: it does not answer within a minute.
    """
    ready, log = folder / "ready.json", folder / "serve.log"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "mlscale", "serve", servable, "port=0", "events=null", f"ready_file={ready}"]
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 60
        while not ready.exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise StepError(" | ".join(log.read_text(errors="replace").splitlines()[-4:]))
            time.sleep(0.05)
        yield json.loads(ready.read_text())["url"]
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def send_raw_request(url: str) -> str:
    """Send one random sample in its raw form, and return the start of the prediction.

    Raises:
        StepError: the answer is not a prediction.
    """
    model = request_model_metadata(url)
    samples = generate_samples(model, "raw")
    # A server that does not state a raw form is sent a tensor.
    request = build_requests(choose_protocol("auto", samples, model, 1), samples, model, 1)[0]
    answer = send_once(url, request, Credentials(), 30)
    if answer is None or answer[0] != 200:
        raise StepError("no answer" if answer is None else f"status {answer[0]}: {answer[2][:200]!r}")
    prediction = json.loads(answer[2])["predictions"][0]
    prediction.pop("id", None)
    return json.dumps(prediction)[:60]


def take_recipe(recipe: str, folder: Path, steps: int, train: list[str], limit_s: float = LIMIT_S) -> RecipeOutcome:
    """Take a recipe through all steps.

    Args:
        recipe: its name.
        folder: of its own; it is created.
        steps: of the training.
        train: more overrides of the training.
        limit_s: of each command.
    """
    run_step = partial(run_command, folder, limit_s=limit_s)
    folder.mkdir(parents=True)
    outcome = RecipeOutcome(recipe, {})
    taken = outcome.steps
    try:
        words = (f"+recipe={recipe}", f"trainer.max_steps={steps}", "snapshot=false", "logger=none", *train)
        run = run_step(*words)["artifacts"]["run"]
        taken["train"] = f"{steps} steps"
        last = (run, "checkpoint=last")
        taken["export"] = f"{run_step('export', *last, f'to={folder}/fp32')['metrics']['onnx_cpu_ms']:.3g} ms"
        taken["compress"] = describe_compression(run_step("compress", *last, "compress=int8")["metrics"])
        exported = run_step("export", *last)
        taken["export int8"] = "int8" if " in int8" in exported["sentence"] else "fp32"
        with start_server(folder, exported["artifacts"]["servable"]) as url:
            taken["serve"] = "ready"
            taken["request"] = send_raw_request(url)
            metrics = run_step("loadtest", url, "users=2", "seconds=2", "warmup_s=0.5")["metrics"]
            taken["loadtest"] = f"{metrics['requests_per_s']:.0f}/s, {metrics['failures']} failed"
    except StepError as error:
        outcome.error = f"{STEPS[len(taken)]}: {error}"
    return outcome


def describe_compression(metrics: dict[str, Any]) -> str:
    """Return whether int8 was kept, its speed-up, size, and the metric with its drop."""
    name = next(key for key in metrics if key.startswith("int8_val/")).removeprefix("int8_val/")
    drop = metrics.get(f"{name}_relative_drop", metrics[f"{name}_drop"])
    unit = " of fp32" if f"{name}_relative_drop" in metrics else ""
    kept = "kept" if metrics["kept"] else "not kept"
    return (
        f"{kept}, {metrics['speedup']:.2f}×, {format_size_change(metrics['size_ratio'])}, "
        f"{name} {metrics[f'int8_val/{name}']:.4g}, drop {drop:+.4f}{unit}"
    )


def format_table(outcomes: list[RecipeOutcome]) -> str:
    """Return the outcomes as a table in Markdown, and the errors below it."""
    lines = [f"| recipe | {' | '.join(STEPS)} |", f"|---|{'---|' * len(STEPS)}"]
    for outcome in outcomes:
        lines.append(f"| {outcome.recipe} | {' | '.join(outcome.steps.get(step, '-') for step in STEPS)} |")
    errors = [f"{outcome.recipe}: {outcome.error}" for outcome in outcomes if outcome.error]
    return "\n".join([*lines, *errors])


def main() -> int:
    """Return 0 if all recipes went through."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=list_recipes(), choices=list_recipes())
    parser.add_argument("--steps", type=int, default=30, help="of the training")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds that a command may take")
    parser.add_argument("--folder", type=Path, help="where runs stay; a temporary one by default")
    parser.add_argument("--train", nargs="*", default=[], help="more overrides of the training")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as scratch:
        folder = (arguments.folder or Path(scratch)).absolute()
        outcomes = []
        for recipe in arguments.recipes:
            print(f"{recipe} …", file=sys.stderr, flush=True)
            outcomes.append(take_recipe(recipe, folder / recipe, arguments.steps, arguments.train, arguments.limit))
            print(format_table(outcomes[-1:]), file=sys.stderr, flush=True)
    print(format_table(outcomes))
    return int(any(outcome.error for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
