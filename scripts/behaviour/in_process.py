"""What one process of the version at hand does: `python in_process.py JOB FOLDER`, with its environment's Python.

Uses only what stays public: `mlscale.compose`, `run` and `load`, the files of contracts, and the simulation of
`scripts/bench_gate.py` in that version's own checkout.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

_ROWS = 16
_TEXTS = (
    "import numpy as np",
    "def f(x): return x",
    "Größe 🐧",
    "a",
    "The socket module " * 40,
    "class A:\n    pass\n",
)
_RECIPES = ("resnet", "tabular", "gpt", "text")
_VALUES = """
    1k 50% 0,5 1,000 10.0 1e3 1h 90s 12:30:00 true off [2] 3 -1 abc 16-mixed [1,2] none 4GB inf cuda:0 0.1 null 1 max
    100ms
"""
_HABITS = """
    --lr 0.2 | lr=1e-3 | --learning-rate 3e-4 | --epochs 5 | --batch-size 32 | -b 32 | --workers 3 | --wd 0.02 |
    --opt adam | --optimizer.lr 0.01 | --precision 16 | --seed_everything 42 | --ckpt_path last.ckpt | --devices 0,1 |
    --gradient_clip_val 1.0 | --accumulate_grad_batches 4 | --per_device_train_batch_size 8 | --num_train_epochs 3 |
    --warmup_ratio 0.1 | --fp16 | --report_to wandb | --deepspeed ds.json | epochs=100 | imgsz=640 | batch=16 |
    device=0 | optimizer=SGD | amp=True | model=yolov8n.pt | --smoothing 0.1 | --clip-grad 1.0 | --arch resnet50 |
    trainer.gpus=2 | trainer.logger=false | trainer.strategy=ddp | hydra.run.dir=out | --num-classes 10 |
    quantize=int8 | format=onnx | model.widths=16 | hydra/launcher=joblib | ~optimizer.lr=0.5 | -cp conf |
    'optimizer.lr=interval(0.1,1)' | --config-name x | +optimizer@second=adamw | hydra/sweeper=optuna |
    optimizer.lr=0.1,0.02
"""
Columns = dict[str, Any]
_ALTER: dict[str, Callable[[Columns, np.random.Generator], Columns]] = {
    "clean": lambda rows, draw: rows,
    "shifted": lambda rows, draw: _alter(rows, "mean radius", lambda x: x + x.std()),
    "wider": lambda rows, draw: _alter(rows, "mean texture", lambda x: x.mean() + 1.2 * (x - x.mean())),
    "other-unit": lambda rows, draw: _alter(rows, "worst area", lambda x: x * 3.6),
    "constant": lambda rows, draw: _alter(rows, "worst radius", lambda x: np.full_like(x, x.mean())),
    "missing": lambda rows, draw: _alter(rows, "mean radius", lambda x: np.where(draw.random(len(x)) > 0.2, x, np.nan)),
    "ordered": lambda rows, draw: _take(rows, np.argsort(rows["mean radius"], kind="stable")),
    "one-class": lambda rows, draw: _take(rows, rows["label"] == "benign"),
    "wrong-labels": lambda rows, draw: (
        rows | {"label": _exchange(rows["label"], draw.random(len(rows["label"])) < 0.15)}
    ),
    "few": lambda rows, draw: _take(rows, slice(80)),
}
"""Logs, by what was done to rows of the recipe's table."""


def digest_weights(run: Path) -> dict[str, str]:
    """Return a digest of each tensor of the model at the end of a run, and of its rank 0's optimizer."""
    from mlscale.train.checkpoint.weights_only_load import load_checkpoint_file

    state = load_checkpoint_file(run / "checkpoints" / "last.ckpt")
    return dict(_digest_tensors({"weights": state["state_dict"], "optimizer": state["optimizer_states"]}, ""))


def _digest_tensors(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _digest_tensors(item, f"{path}/{key}")
    elif hasattr(value, "numpy"):
        array = value.detach().float().contiguous().numpy()
        yield path, f"{list(array.shape)} {hashlib.sha256(array.tobytes()).hexdigest()[:16]}"


def answer_samples(servable: Path) -> list[Any]:
    """Return what a servable answers to raw samples that its own schema and a seed determine."""
    import mlscale

    model, raw = mlscale.load(servable), yaml.safe_load((servable / "servable.yaml").read_text())["raw_input"]
    predictions = model.predict(draw_samples(raw))
    return [_plain(predictions[number]) for number in range(len(predictions))]


def draw_samples(raw: dict[str, Any]) -> list[Any]:
    """Return raw samples of a schema: rows between the ends of training, some with missing values; pictures; texts."""
    draw = np.random.default_rng(0)
    if raw["type"] == "text":
        return list(_TEXTS)
    if raw["type"] == "image":
        from PIL import Image

        sizes = [(8, 8), (28, 28), (37, 91), (120, 40)] if raw["any_size"] else [(raw["height"], raw["width"])] * 4
        mode, channels = ("L", ()) if raw["colours"] in ("grey", "L", 1) else ("RGB", (3,))
        return [Image.fromarray(draw.integers(0, 256, (*size, *channels), np.uint8), mode) for size in sizes]
    rows = []
    for number in range(_ROWS):
        row: dict[str, Any] = {}
        for column in raw["columns"]:
            if column["type"] == "number":
                row[column["name"]] = float(draw.uniform(column["minimum"], column["maximum"]))
            else:
                row[column["name"]] = draw.choice(column["categories"])
            if column["may_be_missing"] and number % 5 == 4:
                row[column["name"]] = None
        rows.append(row)
    return rows


def _plain(value: Any) -> Any:
    """Return a prediction as JSON; arrays by their digest, and their first values to show what differs."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray) and value.size > 64:
        return [hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16], *value.ravel()[:3].tolist()]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def refuse_wrong_words(folder: Path) -> dict[str, Any]:
    """Return the exit code and the keys of each wrong configuration that is stored."""
    import mlscale

    found: dict[str, Any] = {}
    for recipe, words in json.loads((folder / "wrong_words.json").read_text()):
        try:
            mlscale.compose([f"+recipe={recipe}", *words])
            answer: Any = "accepted"
        except mlscale.MLScaleError as error:
            answer = [int(error.exit), sorted(problem.where for problem in error.list_problems())]
        found[f"{recipe} {' '.join(words)}"] = answer
    return found


def write_streams(folder: Path) -> list[str]:
    """Write logs of a server of `tabular`, with predictions by its servable; return their names."""
    from sklearn.datasets import load_breast_cancer

    import mlscale

    loaded = load_breast_cancer()
    inputs = [str(name) for name in loaded.feature_names]
    table = dict(zip(inputs, loaded.data.T, strict=True)) | {"label": loaded.target_names[loaded.target]}
    model, target = mlscale.load(folder / "servables" / "tabular"), folder / "streams"
    target.mkdir()
    mapping = {"time": "when", "prediction": "predicted", "confidence": "confidence", "label": "label"}
    (target / "mapping.yaml").write_text(yaml.safe_dump(mapping | {"inputs": {name: name for name in inputs}}))
    for number, (kind, alter) in enumerate(_ALTER.items()):
        for seed in range(3):
            draw = np.random.default_rng([seed, number])
            rows = alter(_take(table, draw.integers(0, len(loaded.target), 300 + 700 * seed)), draw)
            count = len(rows["label"])
            samples = [{name: float(rows[name][row]) for name in inputs} for row in range(count)]
            predictions = model.predict(
                [{name: None if np.isnan(value) else value for name, value in sample.items()} for sample in samples]
            )
            minutes = np.datetime64("2026-01-05T00:00:00") + 7 * np.arange(count).astype("timedelta64[m]")
            with (target / f"{kind}-{seed}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["when", "predicted", "confidence", "label", *inputs])
                for row, sample in enumerate(samples):
                    answer = predictions[row]
                    values = ["" if np.isnan(value) else value for value in sample.values()]
                    writer.writerow(
                        [f"{minutes[row]}Z", answer["label"], answer["confidence"], rows["label"][row], *values]
                    )
    return sorted(path.stem for path in target.glob("*.csv"))


def judge_streams(folder: Path) -> dict[str, Any]:
    """Return the monitor's verdict on each stored log."""
    import mlscale

    found = {}
    for path in sorted((folder / "streams").glob("*.csv")):
        state = Path("states", f"{path.stem}.json")
        words = [f"mapping={path.parent}/mapping.yaml", "window.hours=null", f"alert.state={state}"]
        found[path.stem] = report(mlscale.run("monitor", [f"{folder}/servables/tabular", f"events={path}", *words]))
    return found


def report(result: Any) -> dict[str, Any]:
    """Return what a result states, as JSON does."""
    return {"ok": result.ok, "metrics": result.metrics, "details": json.loads(json.dumps(result.details, default=str))}


def judge_windows(folder: Path) -> dict[str, Any]:
    """Return the gate's verdict on 30 drawn windows: by all samples, and class by class."""
    import mlscale

    sys.path.insert(0, str(Path(mlscale.__file__).parents[1]))
    from scripts.bench_gate import simulate_gate

    cases = [(classes, count) for classes in (5, 20, 60) for count in (500, 2000, 10_000)]
    return {
        f"{seed}: {classes} classes, {count} samples": [
            bool(part)
            for part in simulate_gate(np.random.default_rng(seed), classes, count, seed % 2 == 0, seed % 3 == 0)
        ]
        for seed in range(30)
        for classes, count in [cases[seed % len(cases)]]
    }


def _take(rows: Columns, index: Any) -> Columns:
    return {name: column[index] for name, column in rows.items()}


def _alter(rows: Columns, name: str, function: Callable[[Any], Any]) -> Columns:
    return rows | {name: function(rows[name])}


def _exchange(labels: Any, which: Any) -> Any:
    return np.where(which, np.where(labels == "benign", "malignant", "benign"), labels)


def draw_wrong_words(count: int) -> Iterator[tuple[str, list[str]]]:
    """Yield recipes and the words of as many configurations, of the keys that the version at hand has."""
    import mlscale

    draw = random.Random(32)
    habits = [shlex.split(habit) for habit in " ".join(_HABITS.split()).split("|")]
    keys = {
        recipe: [key for key in _list_keys(mlscale.compose([f"+recipe={recipe}"])) if not key.endswith("_")]
        for recipe in _RECIPES
    }
    for number in range(count):
        recipe = draw.choice(_RECIPES)
        key = draw.choice(keys[recipe])
        head, dot, last = key.rpartition(".")
        cut = draw.randrange(len(last))
        misspelt = head + dot + last[:cut] + last[cut + 1 :]
        typed = draw.choice([key, misspelt, f"{head}{dot}{last}_x", f"+{key}x"])
        yield recipe, habits[number % len(habits)] if number % 4 == 0 else [f"{typed}={draw.choice(_VALUES.split())}"]


def _list_keys(cfg: Any) -> list[str]:
    from omegaconf import OmegaConf

    return list(_walk(OmegaConf.to_container(cfg, resolve=False), ""))


def _walk(node: Any, front: str) -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _walk(value, f"{front}{key}.")
        elif not front.startswith("derived"):
            yield f"{front}{key}"


def draw_words(folder: Path) -> Any:
    """Return 300 wrong configurations."""
    return list(draw_wrong_words(300))


JOBS: dict[str, Callable[[Path], Any]] = {
    "draw": draw_words,
    "weights": digest_weights,
    "answers": answer_samples,
    "wrong": refuse_wrong_words,
    "write": write_streams,
    "streams": judge_streams,
    "windows": judge_windows,
}

if __name__ == "__main__":
    output, sys.stdout = sys.stdout, sys.stderr
    json.dump(JOBS[sys.argv[1]](Path(sys.argv[2])), output, indent=1)
