"""Whose line raised an error."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from mlscale.culprit import find_user_line, summarize_error, wrap_unforeseen_error
from mlscale.errors import Exit


def _fail(raises: BaseException) -> None:
    raise raises


def test_the_line_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    with pytest.raises(ValueError, match="odd") as caught:
        _fail(ValueError("odd"))
    reported = wrap_unforeseen_error(caught.value, "rank 1")
    line = _fail.__code__.co_firstlineno + 1
    assert (reported.what, reported.where) == ("ValueError: odd", f"rank 1: test_culprit.py:{line}, in _fail")
    assert reported.exit == Exit.BUG
    assert "your code" in reported.why


def test_a_library_called_by_the_user_is_not_the_culprit() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    assert "test_culprit.py" in find_user_line(caught.value), "json is Python's; the line that called it is ours"


class _NoStep(pl.LightningModule):
    def configure_optimizers(self) -> None:
        """Have no optimizer."""


class _BadLog(pl.LightningModule):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("x", {"a": {}})  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.zeros(1)))


@pytest.mark.parametrize(
    ("action", "where", "why", "fix"),
    [
        (
            lambda trainer: trainer.fit(_NoStep()),
            "test_culprit.py:",
            "No `training_step()` method",
            "def training_step(self, batch, batch_idx): …",
        ),
        (
            lambda trainer: trainer.validate(_BadLog()),
            "test_culprit.py:",
            "nested dictionaries",
            "MLSCALE_TRACEBACK=1",
        ),
        (lambda _: ModelCheckpoint(save_top_k=-3), "test_culprit.py:", "save_top_k=-3", "MLSCALE_TRACEBACK=1"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_lightning_refuses_is_the_users_with_its_sentence(
    action: Callable[[pl.Trainer], object], where: str, why: str, fix: str, tmp_path: Path
) -> None:
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    with pytest.raises(Exception, match=re.escape(why)) as caught:
        action(trainer)
    reported = wrap_unforeseen_error(caught.value)
    assert reported.exit == Exit.USER
    assert (where in reported.where, why in reported.why, fix in reported.fix) == (True, True, True), reported


def test_an_error_of_torch_below_lightning_is_not_lightnings() -> None:
    with pytest.raises(RuntimeError, match="Unexpected key") as caught:
        _BadLog().load_state_dict({"x": torch.zeros(1)})
    assert "Lightning refuses" not in wrap_unforeseen_error(caught.value).what


def test_no_line_of_the_user() -> None:
    reported = wrap_unforeseen_error(KeyError("x"))
    assert reported.where == "mlscale, or a library that it called"
    assert reported.what == "KeyError: 'x'"


def test_an_error_out_of_a_loaders_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        "Caught OSError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        f'  File "{json.__file__}", line 3, in fetch\n    x()\n'
        f'  File "{tmp_path}/mine.py", line 7, in __getitem__\n    raise OSError("gone")\nOSError: gone\n'
    )
    error = OSError(text)
    assert summarize_error(error) == "OSError: gone"
    assert find_user_line(error) == "mine.py:7, in __getitem__"


def test_code_that_does_not_parse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SyntaxError) as caught:
        compile("\ndef f(:\n", str(tmp_path / "net.py"), "exec")
    assert find_user_line(caught.value) == "net.py:2"
