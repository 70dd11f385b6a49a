"""What precision does to accuracy: fp32 against bf16, and against float16 as it is computed on a CPU.

    python -m scripts.bench_precision [--recipes resnet,vit,multilabel] [--seeds 3] [--without multilabel:fp16]

Each recipe is trained from the same seeds in each precision; the last checkpoints answer the same validation samples,
all of them computed in fp32, as a servable would. A sample is right when its class is (multi-label: all labels are).
The difference is paired: McNemar's mid-p, and Tango's interval with 95 % at each end (`mlscale.stats.paired`), over
samples and seeds together.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray

from mlscale import commands
from mlscale.assembly.ready import compose_from_overrides
from mlscale.runs.folder import RunFolder
from mlscale.stats.paired import compare_paired

PRECISIONS = {
    "fp32": ("precision=fp32",),
    "bf16": ("precision=bf16",),
    "fp16": ("precision=fp16", "precision.on_cpu=true"),
}
# A CPU takes many times as long for convolutions in float16, so recipes are trained in part.
SHORTER = {
    "resnet": ("model.widths=[16,32,64]", "trainer.max_epochs=4"),
    "vit": ("trainer.max_epochs=12",),
    "multilabel": ("trainer.max_epochs=4",),
    "tabular": (),
    "text": (),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", default="resnet,vit,multilabel")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--without", default="", help="recipe:precision, several divided by a comma, to leave out")
    arguments = parser.parse_args()
    print("| recipe | precision | accuracy | difference | 95 % ends | p | skipped |")
    print("|---|---|---|---|---|---|---|")
    left_out = arguments.without.split(",")
    for recipe in arguments.recipes.split(","):
        right: dict[str, list[NDArray[Any]]] = {}
        for precision in PRECISIONS:
            if f"{recipe}:{precision}" not in left_out:
                _row(recipe, precision, arguments, right)


def _row(recipe: str, precision: str, arguments: Any, right: dict[str, list[NDArray[Any]]]) -> None:
    results = []
    for seed in range(arguments.seeds):
        correct, metrics = trained(recipe, precision, seed)
        right.setdefault(precision, []).append(correct)
        results.append(metrics)
    share = np.concatenate(right[precision]).mean()
    row = [recipe, precision, f"{share:.2%}"]
    if precision == "fp32":
        row += ["", "", "", ""]
    else:
        found = compare_paired(np.concatenate(right["fp32"]), np.concatenate(right[precision]))
        row += [f"{found.difference:+.2%}", f"{found.low:+.2%} to {found.high:+.2%}", f"{found.p:.2f}"]
        row.append(_mean(results, "train/skipped_steps", ".0f"))
    print(f"| {' | '.join(row)} |", flush=True)


def trained(recipe: str, precision: str, seed: int) -> tuple[NDArray[Any], dict[str, Any]]:
    """Whether each validation sample is right, bool (n,), and the metrics of the run."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f"+recipe={recipe}", f"seed={seed}", f"runs_dir={folder}", *SHORTER.get(recipe, ())]
        words += ["snapshot=false", "logger=none", "callbacks=[checkpoint,metrics,nonfinite]"]
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
            result = commands.run_command("train", [*words, *PRECISIONS[precision]])
            run = RunFolder.open(result.artifacts["run"])
            return _right(run), {**result.metrics}


def _right(run: RunFolder) -> NDArray[Any]:
    from mlscale.assembly.run_data import RunData
    from mlscale.assembly.trained_model.rebuild import rebuild_data_and_task, restore_training_config

    run_data = RunData()
    cfg = restore_training_config(compose_from_overrides("evaluate", [str(run.path), "precision=fp32"]), run, run_data)
    data, task = rebuild_data_and_task(cfg, run.path / "checkpoints/last.ckpt", "validate", run_data)
    task.eval()
    found = []
    with torch.no_grad():
        for batch in data.val_dataloader():
            logits, y = task(batch["x"]), batch["y"]
            right = (logits.argmax(-1) == y) if y.ndim == 1 else ((logits > 0) == (y > 0.5)).all(-1)
            weight = batch.get("weight")
            found.append(right if weight is None else right[weight > 0])
    return torch.cat(found).numpy()


def _mean(results: list[dict[str, Any]], name: str, shown: str) -> str:
    """Over the seeds; nothing where it was not measured: float16 on a CPU is too slow to be timed."""
    values = [float(each[name]) for each in results if name in each]
    return format(fmean(values), shown) if values else ""


if __name__ == "__main__":
    main()
