"""What weights to start from are worth: a ResNet that knows nine digits learns the tenth, and the same from scratch.

    python -m scripts.bench_finetune [--seeds 5] [--samples 100] [--epochs 1,2,4,8]

A ResNet is trained on the digits 0 to 8 of scikit-learn's set, all of their training images. Then ten classes are
learnt from a few images of all ten digits: from scratch, from those weights (the head begins anew, for it had nine
outputs), and from them with the head alone trained at first. The same images, order and seeds for all, the same
validation images (those of `data=digits`); the difference is paired over samples and seeds (McNemar's mid-p).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from mlscale import commands
from mlscale.assembly.ready import compose_from_overrides
from mlscale.runs.folder import RunFolder
from mlscale.stats.paired import compare_paired

NET = ("+recipe=resnet", "model.widths=[16,32,64]", "snapshot=false", "logger=none", "callbacks=[checkpoint,metrics]")
WAYS = {
    "from scratch": (),
    "init_from": ("init_from={weights}",),
    "init_from, head first": ("init_from={weights}", "callbacks=[checkpoint,metrics,freeze]"),
    "init_from, layer_decay=0.7": ("init_from={weights}", "layer_decay=0.7"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--epochs", default="1,2,4,8")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(labels))
        val, train = order[:360], order[360:]
        write(folder / "nine.tar", images, labels, [i for i in train if labels[i] < 9])
        write(folder / "nine-val.tar", images, labels, [i for i in val if labels[i] < 9])
        write(folder / "val.tar", images, labels, list(val))
        data = ("data=webdataset", "data.batch_size=32", "optimizer.lr=0.05")
        first = run(folder, [*NET, *data, f"data.train={folder}/nine.tar", f"data.val={folder}/nine-val.tar",
                             "trainer.max_epochs=8"])  # fmt: skip
        nine = RunFolder.open(first.artifacts["run"])
        print(f"nine digits: val/accuracy {first.metrics['val/accuracy']:.2%}\n")
        print(f"| epochs on {arguments.samples} images | {' | '.join(WAYS)} |\n|---|{'---|' * len(WAYS)}")
        for epochs in map(int, arguments.epochs.split(",")):
            row, scratch = [], None
            for words in WAYS.values():
                right = []
                for seed in range(arguments.seeds):
                    few = np.random.default_rng(seed).choice(train, arguments.samples, replace=False)
                    write(folder / "few.tar", images, labels, list(few))
                    given = [*NET, *data, *(word.format(weights=nine.path) for word in words), f"seed={seed}"]
                    given += [
                        f"data.train={folder}/few.tar",
                        f"data.val={folder}/val.tar",
                        f"trainer.max_epochs={epochs}",
                    ]
                    right.append(answers(RunFolder.open(run(folder, given).artifacts["run"])))
                pooled = np.concatenate(right)
                text = f"{pooled.mean():.1%}"
                if scratch is not None:
                    found = compare_paired(scratch, pooled)
                    text += f" ({found.difference:+.1%}, at least {found.low:+.1%})"
                scratch = pooled if scratch is None else scratch
                row.append(text)
            print(f"| {epochs} | {' | '.join(row)} |", flush=True)


def write(path: Path, images: NDArray[Any], labels: NDArray[Any], which: list[Any]) -> None:
    """A shard of these images, 8×8 grey, as PNG."""
    with tarfile.open(path, "w") as tar:
        for i in which:
            stream = io.BytesIO()
            Image.fromarray((images[i].reshape(8, 8) / 16 * 255).astype(np.uint8)).save(stream, "PNG")
            for suffix, content in (("png", stream.getvalue()), ("cls", str(labels[i]).encode())):
                member = tarfile.TarInfo(f"{i:05}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def run(folder: Path, words: list[str]) -> Any:
    """Train, silently."""
    return _silent(lambda: commands.run_command("train", [*words, f"runs_dir={folder}/runs"]))


def answers(run: RunFolder) -> NDArray[Any]:
    """Whether each validation image is right after the last epoch, bool (n,)."""
    from mlscale.assembly.run_data import RunData
    from mlscale.assembly.trained_model.rebuild import rebuild_data_and_task, restore_training_config

    def ask() -> NDArray[Any]:
        run_data = RunData()
        cfg = restore_training_config(compose_from_overrides("evaluate", [str(run.path)]), run, run_data)
        data, task = rebuild_data_and_task(cfg, run.path / "checkpoints/last.ckpt", "validate", run_data)
        task.eval()
        with torch.no_grad():
            right = [(task(batch["x"]).argmax(-1) == batch["y"]) for batch in data.val_dataloader()]
        return torch.cat(right).numpy()

    found: NDArray[Any] = _silent(ask)
    return found


def _silent(work: Callable[[], Any]) -> Any:
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        return work()


if __name__ == "__main__":
    main()
