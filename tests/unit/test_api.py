"""The Python API: what it refuses, and what importing it costs. That it trains is in tests/e2e/test_api.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import mlscale
from mlscale import api
from mlscale.errors import MLScaleError
from mlscale.launch import rank


def test_train_is_a_plain_package() -> None:
    import mlscale.train

    assert not callable(mlscale.train)


def test_a_config_that_was_not_composed_is_refused() -> None:
    with pytest.raises(MLScaleError, match="not a configuration of compose"):
        mlscale.run("train", OmegaConf.create({"seed": 1}))


def test_what_is_offered_is_found_and_nothing_else() -> None:
    assert {name for name in mlscale.__all__ if getattr(mlscale, name) is None} == set()
    assert set(mlscale.__all__) <= set(dir(mlscale))
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        _ = mlscale.fit


def test_all_problems_come_as_one_error(folder: Path) -> None:
    with pytest.raises(MLScaleError) as caught:
        mlscale.compose(["+recipe=resnet", "optimizer.lrr=1", "trainer.devcies=2"])
    assert "optimizer.lrr" in str(caught.value)
    assert "trainer.devcies" in str(caught.value)


def test_a_config_that_was_altered_is_checked_again_and_stays_as_it_is(folder: Path) -> None:
    cfg = mlscale.compose(["+recipe=resnet"])
    cfg.optimizer.lrr = 0.1
    before = cfg.copy()
    with pytest.raises(MLScaleError, match=r"unknown key 'optimizer\.lrr'"):
        mlscale.run("train", cfg)
    assert cfg == before
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("verb", "words", "what"),
    [
        ("train", ["-m", "seed=1,2"], "flags are for the command line"),
        ("train", ["--cfg", "job"], "flags are for the command line"),
        ("train", "+recipe=resnet seed=1", "overrides are a list of texts"),
        ("runs", ["ls"], "'runs' is not a command with a config"),
        ("fly", [], "'fly' is not a command with a config"),
    ],
)
def test_what_is_for_the_command_line_is_refused(folder: Path, verb: str, words: list[str], what: str) -> None:
    with pytest.raises(MLScaleError, match=what):
        mlscale.run(verb, words)


def test_a_script_that_is_imported_by_its_own_run_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = mlscale.compose(["+recipe=resnet"])
    monkeypatch.setattr(rank, "_is_rank", True)
    with pytest.raises(MLScaleError, match="asked to train by code that it imports") as caught:
        mlscale.run("train", cfg)
    assert "__main__" in caught.value.fix
    assert api._busy == []


def test_a_class_of_the_session_is_for_one_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)  # as in a notebook, and in `python script.py`
    words = ["+recipe=resnet", "model=none", "model._target_=__main__.Net", "trainer.devices=2"]
    with pytest.raises(MLScaleError, match=r"__main__\.Net is known to this process alone"):
        mlscale.run("train", words)


def test_lightnings_exit_is_an_interrupt() -> None:
    def ends(first: BaseException) -> None:
        with api._convert_exit():
            try:
                raise first
            except BaseException:
                sys.exit(1)

    with pytest.raises(KeyboardInterrupt):
        ends(KeyboardInterrupt())
    with pytest.raises(SystemExit):  # somebody else's
        ends(ValueError())


def test_a_notebook_shows_the_message_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    error = MLScaleError("no", fix="yes")
    assert error._render_traceback_() == ["error: no\n  fix:   yes"]
    monkeypatch.setenv("MLSCALE_TRACEBACK", "1")
    assert "MLScaleError: no" in "".join(error._render_traceback_())
