"""Gone on with in another number of processes, a run sees the same global batches, and says that its bits differ."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from tests.resume.commands import end, ended

BATCH, EPOCHS, STEPS = 64, 2, 44
WORDS = ("+recipe=resnet", "model=mlp", "snapshot=false", f"trainer.max_epochs={EPOCHS}", "callbacks=[default]")

Batches = dict[int, list[str]]


def seen(folder: Path) -> Batches:
    """The sorted sample keys of each optimizer step, over all ranks."""
    steps: Batches = {}
    for path in folder.glob("train-*.jsonl"):
        for line in path.read_text().splitlines():
            _, step, keys = json.loads(line)
            steps.setdefault(step, []).extend(keys)
    return {step: sorted(keys) for step, keys in steps.items()}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["auto", "fsdp"])
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_the_same_global_batches(folder: Path, before: int, after: int, strategy: str) -> None:
    keys = f"+callbacks.keys={{_target_:tests.dist.recorder.Keys,folder:{folder / 'keys'}}}"
    words = (*WORDS, keys, f"strategy={strategy}", f"trainer.devices={before}", "callbacks.checkpoint.every_n_steps=5")
    code, printed = ended(folder, *words, "runs_dir=undisturbed")
    assert code == 0, printed
    whole = seen(folder / "keys")
    shutil.rmtree(folder / "keys")

    code, printed = ended(folder, *words, end("step", folder, step=12, whom="command"))
    assert code == -signal.SIGKILL, printed
    until_killed = seen(folder / "keys")
    shutil.rmtree(folder / "keys")
    code, printed = ended(folder, "runs", "resume", "last", "trust=true", f"trainer.devices={after}")
    assert code == 0, printed
    since = seen(folder / "keys")

    assert sorted(whole) == list(range(STEPS))
    assert all(len(set(batch)) == BATCH for batch in whole.values())
    assert sorted(since) == list(range(10, STEPS))  # from the checkpoint on, nothing before it
    assert all(since[step] == whole[step] for step in since)
    assert all(until_killed[step] == whole[step] for step in range(12))
    assert (
        f"layout    {before} process{'es' if before > 1 else ''} before, {after} now: the same global batches"
        in printed
    )
    assert "resumed from step 10 with the same samples, not bitwise identical" in printed
