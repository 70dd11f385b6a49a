"""Which run may go on, and when it may not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mlscale.atomic_files import read_json
from mlscale.errors import MLScaleError
from mlscale.runs.folder import RunFolder
from mlscale.runs.resume_plan import find_run_to_resume
from tests.unit.runs.conftest import CONFIG

Start = Callable[..., RunFolder]


def rewrite(run: RunFolder, text: str) -> RunFolder:
    (run.path / "config.yaml").write_text(text)
    return RunFolder.open(run.path)


@pytest.mark.parametrize("edit", [("lr: 0.1", "lr: 0.3"), ("seed: 1", "seed: 3"), ("optimizer:", "optimizes:")])
def test_a_run_whose_config_was_edited_does_not_go_on(edit: tuple[str, str], start: Start, tmp_path: Path) -> None:
    text = CONFIG.replace(*edit)
    run = rewrite(start(), text)
    with pytest.raises(MLScaleError, match=r"resnet-\w+ is not the one that it began with") as caught:
        find_run_to_resume(run.id, text, None, tmp_path / "runs")
    assert f"mlscale like={run.id} init_from={run.id}" in caught.value.fix


def test_edits_of_what_computes_nothing_and_configs_that_were_typed_again_go_on(start: Start, tmp_path: Path) -> None:
    elsewhere = CONFIG.replace("devices: 1", "devices: 2")
    run = rewrite(start(), elsewhere)
    assert find_run_to_resume(run.id, elsewhere, None, tmp_path / "runs") is not None
    run = rewrite(run, CONFIG.replace("lr: 0.1", "lr: 0.3"))
    assert (
        find_run_to_resume(run.id, CONFIG, None, tmp_path / "runs") is not None
    )  # the command brings what it began with


def test_a_run_that_an_earlier_mlscale_hashed_otherwise_goes_on(start: Start, tmp_path: Path) -> None:
    run = start()
    document = read_json(run.path / "run.json") | {"config_hash": "0" * 64}
    run.write_json("run.json", document)
    assert find_run_to_resume(run.id, CONFIG, None, tmp_path / "runs") is not None
