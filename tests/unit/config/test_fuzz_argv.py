"""Whatever is typed is answered with a config or an error of ours: no traceback, no exit code of a bug."""

from __future__ import annotations

import os
import random

import pytest

from mlscale.cli import main

PIECES = [
    "--cfg",
    "--resolve",
    "-m",
    "--info",
    "-p",
    "--config-dir",
    "--config-dir=~nobody",
    "-cd",
    "--gpus",
    "--lr=1",
    "-",
    "--",
    "=",
    "~",
    "+",
    "++",
    "~model",
    "~x",
    "+x=1",
    "model@x=mlp",
    "a=",
    "=b",
    "a=b=c",
    "seed=1,2",
    "x={",
    "x=[",
    "x=${",
    "x='",
    "trainer={}",
    "trainer=[]",
    "model={a:1}",
    "optimizer=glob(x*)",
    "seed=range(3)",
    "recipe=",
    "recipe=[a,b]",
    "recipe=resnet",
    "data=[digits,mnist]",
    "callbacks=[]",
    "callbacks={}",
    "1=2",
    "null=1",
    "a[0]=1",
    "tags[0]=1",
    "derived=1",
    "hydra=1",
    "hydra.job.name=${x}",
    "~hydra",
    "base=x",
    "command=train",
    "verb=train",
    "x=" + "[" * 300,
    "x=" + "[" * 300 + "]" * 300,
    "seed=" + "9" * 5000,
    "é=1",
    "\x00=1",
    "name=\udcff",
    "a b=1",
    "model",
    "resnet",
    "model._target_=",
    "seed=${seed}",
    "model._target_=[1]",
    "optimizer._target_=torch.optim",
    "model._args_=3",
    "logger.csv=null",
    "callbacks.checkpoint=3",
    "precision=null",
    "scheduler={scheduler:1}",
    "model=${model}",
    "trainer=${x}",
    "name=${name}",
    "param_groups=[1]",
]


@pytest.mark.slow
def test_no_words_are_a_bug_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    random_ = random.Random(seed)
    for _ in range(150):
        words = random_.sample(PIECES, random_.randrange(1, 5))
        code = main(["config", "check", *words])
        printed = capsys.readouterr()
        assert code in (0, 2), (seed, words, printed.err)
        assert code == 0 or "fix:" in printed.err or "docs/" in printed.err, (seed, words, printed.err)
