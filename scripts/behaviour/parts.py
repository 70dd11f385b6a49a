"""The parts of the record: what each starts, and what of that two versions must have in common."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

HERE = Path(__file__).resolve().parent
LAYOUTS = {
    "1": ["trainer.devices=1"],
    "2": ["trainer.devices=2"],
    "fsdp": ["trainer.devices=2", "strategy=fsdp"],
    "sharded": ["trainer.devices=2", "strategy=fsdp", "strategy.sharded_checkpoint=true"],
}
RECIPES = ("finetune", "gpt", "multilabel", "regression", "resnet", "segmentation", "tabular", "text", "vit")
HALVES = ("tabular-1", "resnet-1", "gpt-1", "text-2", "regression-fsdp", "vit-sharded")
"""The runs that the recorded version also leaves killed halfway."""
SERVED = ("tabular", "resnet", "gpt", "text", "segmentation", "regression")
SMALL = (
    "wrong",
    "streams",
    "windows",
    *(f"run/{name}-{count}" for name in ("resnet", "tabular", "gpt") for count in "12"),
)
STEPS, KILLED = 20, 7
_LIMIT_S = 1200
# What is measured, and what names a moment or a place.
_OF_THE_MOMENT = re.compile(
    r"(_ms|_s|_s_low|_s_high|_usd|_limit_bytes|_per_second)$|latency|speedup|per_s|time|seconds|needed_memory|rss"
    r"|^(kept|page|sentence|state|events|run|folder|path|since|until|checked|version|package.*)$"
)


class PartError(Exception):
    """A command of a part ended otherwise than it must; the message is the last of what it printed."""


@dataclass(frozen=True)
class Place:
    """Where a version runs.

    Attributes:
        python: of its environment.
        record: the folder that all versions share: stored inputs, servables, runs killed halfway.
        folder: of this version's own runs.
    """

    python: Path
    record: Path
    folder: Path

    def run(self, *command: str, code: int | None = 0) -> str:
        """Run a command, and return its standard output.

        Args:
            command: of this version's Python, such as `-m mlscale train`.
            code: that it must end with; None for any.
        """
        environment = {**os.environ, "PYTHONPATH": str(HERE), "COLUMNS": "120", "MLSCALE_CACHE": f"{self.folder}/cache"}
        done = subprocess.run(
            [str(self.python), *command], cwd=self.folder, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=_LIMIT_S, start_new_session=True,
        )  # fmt: skip
        if code is not None and done.returncode != code:
            last = " | ".join((done.stderr or done.stdout).splitlines()[-6:])
            raise PartError(f"{' '.join(command)}: exit code {done.returncode}: {last}")
        return done.stdout

    def mlscale(self, *words: str) -> dict[str, Any]:
        """Run a command of mlscale, and return its result."""
        result: dict[str, Any] = json.loads(self.run("-m", "mlscale", *words, "output=json", code=None) or "{}")
        if not result.get("format", "").startswith("mlscale/result"):
            raise PartError(f"{' '.join(words)}: {result.get('problems') or result}")
        return cast("dict[str, Any]", keep_common(result))

    def job(self, name: str, folder: Path) -> Any:
        """Return what a job of `in_process.py` finds."""
        return json.loads(self.run(str(HERE / "in_process.py"), name, str(folder)))

    def find_run(self, name: str) -> Path:
        """Return the folder of a run of this version."""
        runs = list(self.folder.glob(f"runs/*/{name}-*"))
        if len(runs) != 1:
            raise PartError(f"there are {len(runs)} runs {name}: make run/{name} first")
        return runs[0]


def list_words(recipe: str, layout: str, folder: Path) -> list[str]:
    """Return what is typed for a run, which a callback kills once, two steps after its checkpoint at `KILLED`."""
    kill = f"+callbacks.kill={{_target_:kill_at_step.KillAtStep,step:{KILLED + 2},folder:{folder}}}"
    short = [
        "snapshot=false",
        "logger=csv",
        "+trainer.limit_val_batches=4",
        "trainer.accelerator=cpu",
        f"seed={len(recipe)}",
    ]
    name = f"name={recipe}-{layout}"
    steps = [f"trainer.max_steps={STEPS}", f"callbacks.checkpoint.every_n_steps={KILLED}", kill]
    short.append("callbacks.checkpoint.asynchronous=false")  # one that is still being written would be lost
    return [f"+recipe={recipe}", *LAYOUTS[layout], *steps, *short, name]


def start_run(place: Place, recipe: str, layout: str) -> list[str]:
    """Start a run that is killed, and return the words by which it resumes."""
    notes = place.folder / "killed" / f"{recipe}-{layout}"
    for left in (notes, *place.folder.glob(f"runs/*/{recipe}-{layout}-*")):  # by a record that was interrupted here
        shutil.rmtree(left, ignore_errors=True)
    notes.mkdir(parents=True)
    words = list_words(recipe, layout, notes)
    place.run("-m", "mlscale", "train", *words, code=None)
    if not (notes / "killed-0").exists():
        raise PartError(f"{recipe}-{layout} was not killed")
    if not list(place.find_run(f"{recipe}-{layout}").glob(f"checkpoints/step={KILLED}.ckpt")):
        raise PartError(f"{recipe}-{layout} was killed before its checkpoint: a resume would start again")
    return words


def train(place: Place, recipe: str, layout: str) -> Any:
    """Train, be killed, resume; return digests of weights and optimizer."""
    words = start_run(place, recipe, layout)
    place.run("-m", "mlscale", "train", *words, "resume=auto")
    return place.job("weights", place.find_run(f"{recipe}-{layout}"))


def use_model(place: Place, recipe: str) -> Any:
    """Return what commands report of a trained model, and what its servable answers."""
    run = str(place.find_run(f"{recipe}-1"))
    last = (run, "checkpoint=last")
    found: dict[str, Any] = {
        "evaluate": place.mlscale("evaluate", *last),
        "export": place.mlscale("export", *last, "warmup=false"),
        "estimate": place.mlscale("estimate", f"+recipe={recipe}", "estimate.probe_seconds=0"),
    }
    found["answers"] = place.job("answers", Path(run, "servable"))
    found["compress"] = place.mlscale("compress", *last, "compress=int8")
    del found["compress"]["ok"]  # whether it is faster, too
    return found


def resume_half(place: Place, recipe: str, layout: str) -> Any:
    """Resume a copy of the run that the recorded version left, and return its digests."""
    name = f"{recipe}-{layout}"
    target = place.folder / "halves" / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(place.record / "halves" / name, target)
    (run,) = target.glob("runs/*/*")
    place.run("-m", "mlscale", "runs", "resume", str(run), f"runs_dir={target}/runs")
    return place.job("weights", run)


def keep_common(value: Any) -> Any:
    """Return a document without what is of the moment, and with numbers of 12 digits."""
    if isinstance(value, dict):
        skipped = ("artifacts", "overrides", "format")
        return {
            key: keep_common(item)
            for key, item in value.items()
            if key not in skipped and not _OF_THE_MOMENT.search(key)
        }
    if isinstance(value, float):
        return float(f"{value:.12g}")
    return [keep_common(item) for item in value] if isinstance(value, list) else value


def show_text(place: Place, *words: str) -> list[str]:
    """Return the lines that a command prints."""
    return place.run("-m", "mlscale", *words).replace(str(place.folder), "<folder>").splitlines()


def list_commands(place: Place) -> list[str]:
    """Return the names of all commands."""
    code = "from mlscale.commands import COMMANDS; print(*COMMANDS)"
    return place.run("-c", code).split()


def show_all(place: Place, of: str) -> Any:
    """Return the help, or the config, of each command."""
    commands = list_commands(place)
    if of == "help":
        return {name: show_text(place, name, "--help") for name in commands}
    return {
        name: shown
        for name in commands
        if (shown := place.run("-m", "mlscale", "config", "show", f"command={name}", code=None).splitlines())
    }


def answer_servable(place: Place, recipe: str) -> Any:
    """Return what this version answers with a servable that the recorded one exported."""
    return place.job("answers", place.record / "servables" / recipe)


def do_job(place: Place, name: str) -> Any:
    """Return what a job finds in the record's stored inputs."""
    return place.job(name, place.record)


def build_parts() -> dict[str, Callable[[Place], Any]]:
    """Return all parts, in the order in which they are made: some use what others left."""
    parts: dict[str, Callable[[Place], Any]] = {
        f"run/{recipe}-{layout}": partial(train, recipe=recipe, layout=layout)
        for layout in LAYOUTS
        for recipe in RECIPES
    }
    parts |= {f"model/{recipe}": partial(use_model, recipe=recipe) for recipe in RECIPES}
    parts |= {
        f"folder/{name}": partial(resume_half, recipe=name.split("-")[0], layout=name.split("-")[1]) for name in HALVES
    }
    parts |= {f"served/{recipe}": partial(answer_servable, recipe=recipe) for recipe in SERVED}
    parts |= {name: partial(do_job, name=name) for name in ("wrong", "windows")}
    parts["streams"] = lambda place: keep_common(place.job("streams", place.record))
    parts |= {name: partial(show_all, of=name) for name in ("help", "config")}
    return parts
