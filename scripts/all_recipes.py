"""Takes every recipe from training to a load-tested server, by the commands that a user types, and prints a table.

    python -m scripts.all_recipes [--recipes tabular text] [--steps 30] [--folder build/recipes]

Each recipe is trained for a few steps, exported, compressed (`compress=int8`), exported again, in int8 where that was
kept, served, sent raw requests whose answers must be those of predict (`scripts.served_answers`), and load-tested. A
step that fails is shown with its error, and ends its recipe. A command may take `--limit` seconds by the wall clock:
int8 of the GPT takes 70 s of a free core, and many times that on a machine that is busy with other things.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlscale.export.servable import load
from mlscale.report.text import format_size_change
from scripts.served_answers import ServerError, compare_answers, start_server

ROOT = Path(__file__).resolve().parent.parent
SAME_MODEL = {"finetune"}
"""Recipes that train a model of another one, from its weights."""
STEPS = ("train", "export", "compress", "export int8", "serve", "requests", "loadtest")
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
        servable = exported["artifacts"]["servable"]
        with start_server(folder, servable) as url:
            taken["serve"] = "ready"
            equal, count = compare_answers(url, load(servable))
            if equal < count:
                raise StepError(f"{equal} of {count} answers are bitwise those of predict")
            taken["requests"] = f"{equal} of {count} bitwise"
            metrics = run_step("loadtest", url, "users=2", "seconds=2", "warmup_s=0.5")["metrics"]
            taken["loadtest"] = f"{metrics['requests_per_s']:.0f}/s, {metrics['failures']} failed"
    except (StepError, ServerError) as error:
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
