"""The speed of training steps on one thread and on all cores, in alternating blocks of one process, by recipe.

python -m scripts.bench_threads                      # all recipes, and ResNet-18 on 224 pixels
chrt -f 20 python -m scripts.bench_threads resnet    # on a busy machine, as root: before all others
OMP_WAIT_POLICY=ACTIVE python -m scripts.bench_threads resnet vit
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import tempfile
import time
import warnings
from statistics import median
from typing import Any

from mlscale.launch.threads import wait_passively

STEPS, ROUNDS = 6, 6
RECIPES = ["finetune", "gpt", "multilabel", "regression", "resnet", "segmentation", "tabular", "text", "vit"]


def measure(name: str) -> str:
    """Return a line: the median time of a step on one thread, and on all cores."""
    import pytorch_lightning as pl
    import torch

    from mlscale.assembly.ready import compose_from_overrides, fill_derived
    from mlscale.assembly.run import assemble_parts
    from mlscale.config.composition.frozen import add_derived

    most = len(os.sched_getaffinity(0))

    class Switch(pl.Callback):
        """Sets the number of threads for a block of steps, in random order within a pair of blocks."""

        def __init__(self) -> None:
            self.seconds: dict[int, list[float]] = {1: [], most: []}
            self.order: list[int] = []
            self.count, self.began = 0, 0.0

        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            if self.count % STEPS == 0:
                if self.count > 2 * STEPS:  # the first blocks warm up
                    self.seconds[torch.get_num_threads()].append((time.perf_counter() - self.began) / STEPS)
                self.order = self.order or random.sample([1, most], 2)
                torch.set_num_threads(self.order.pop())
                self.began = time.perf_counter()
            self.count += 1
            trainer.should_stop = self.count > 2 * STEPS * (ROUNDS + 1)

    with tempfile.TemporaryDirectory() as folder:
        large = ["recipe=resnet", "model=timm", f"model.model_name={name}", "data.image_size=224", "data.batch_size=4"]
        words = [f"recipe={name}"] if name in RECIPES else large
        words += ["logger=none", "callbacks=none", "scheduler=none", "trainer.limit_val_batches=0"]
        cfg = fill_derived(compose_from_overrides("train", words))
        parts = assemble_parts(add_derived(cfg, {**cfg.derived, "run_dir": folder, "threads": most}))
        switch = Switch()
        fitting = pl.Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=1000,
            enable_model_summary=False, limit_val_batches=0, precision=cfg.precision.value, callbacks=[switch],
            default_root_dir=folder,
        )  # fmt: skip
        fitting.fit(parts.task, datamodule=parts.data)
    one, several = (1e3 * median(switch.seconds[count]) for count in (1, most))
    return f"| {name} | {one:.1f} | {several:.1f} | {one / several:.2f} | {cfg.derived.threads} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[*RECIPES, "resnet18"], help="recipes, or models of timm")
    names = parser.parse_args().names
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    wait_passively()
    print(f"waiting: {os.environ.get('OMP_WAIT_POLICY')}, {os.environ.get('GOMP_SPINCOUNT')} turns")
    print("| recipe | one thread, ms | all cores, ms | × | default threads |\n|---|---|---|---|---|")
    for name in names:
        print(measure(name), flush=True)


if __name__ == "__main__":
    main()
