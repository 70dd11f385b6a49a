"""Real ranks, by the command line: which samples each of them saw, and in which optimizer step."""

import json
from collections import Counter
from pathlib import Path

import pytest

from mlscale.cli import main
from tests.conftest import runs_in

TRAIN, VAL, BATCH, EPOCHS = 1437, 360, 64, 2
STEPS = TRAIN // BATCH  # the last 29 samples of an epoch fill no batch

Seen = list[tuple[int, int, list[str]]]  # epoch, optimizer step, keys


def train(folder: Path, name: str, *words: str) -> None:
    keys = f"+callbacks.keys={{_target_:tests.dist.recorder.Keys,folder:{folder / name}}}"
    words = ("+recipe=resnet", "model=mlp", "snapshot=false", f"trainer.max_epochs={EPOCHS}", keys, *words)
    assert main([*words, "callbacks=[checkpoint,metrics,nonfinite]"]) == 0


def seen(folder: Path, kind: str, ranks: int) -> Seen:
    files = sorted(folder.glob(f"{kind}-*.jsonl"))
    assert [path.stem for path in files] == [f"{kind}-{rank}" for rank in range(ranks)]
    return [tuple(json.loads(line)) for path in files for line in path.read_text().splitlines()]


def global_batches(folder: Path, ranks: int) -> dict[int, list[str]]:
    """The sorted keys of each optimizer step, over all ranks and accumulated passes."""
    steps: dict[int, list[str]] = {}
    for _, step, keys in seen(folder, "train", ranks):
        steps.setdefault(step, []).extend(keys)
    return {step: sorted(keys) for step, keys in steps.items()}


def check_counts(folder: Path, ranks: int) -> None:
    """Each sample at most once per epoch in training, exactly once in evaluation."""
    for epoch in range(EPOCHS):
        trained = Counter(key for at, _, keys in seen(folder, "train", ranks) if at == epoch for key in keys)
        assert len(trained) == trained.total() == STEPS * BATCH
        evaluated = Counter(key for at, _, keys in seen(folder, "val", ranks) if at == epoch for key in keys)
        assert len(evaluated) == evaluated.total() == VAL


@pytest.mark.slow
def test_two_ranks_and_accumulation_see_the_global_batches_of_one(folder: Path) -> None:
    layouts = {
        "one": ("trainer.devices=1",),
        "accumulated": ("trainer.accumulate_grad_batches=2",),
        "two": ("trainer.devices=2",),
        "both": ("trainer.devices=2", "trainer.accumulate_grad_batches=2"),
    }
    batches = {}
    for name, words in layouts.items():
        ranks = 2 if "trainer.devices=2" in words else 1
        train(folder, name, *words)
        check_counts(folder / name, ranks)
        batches[name] = global_batches(folder / name, ranks)
    assert len(batches["one"]) == STEPS * EPOCHS
    assert batches["one"][0] != batches["one"][STEPS]  # another order in the next epoch
    assert batches["one"] == batches["accumulated"] == batches["two"] == batches["both"]
    assert len(runs_in(folder)) == len(layouts)
    assert {path.name for path in folder.iterdir()} == {"runs", *layouts}


@pytest.mark.slow
def test_eight_ranks(folder: Path) -> None:
    train(folder, "one", "trainer.devices=1")
    train(folder, "eight", "trainer.devices=8", "model=resnet")
    check_counts(folder / "eight", 8)
    assert global_batches(folder / "eight", 8) == global_batches(folder / "one", 1)
    assert len(runs_in(folder)) == 2
