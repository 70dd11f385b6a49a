"""How many passes a challenger needs, by the losses of its champion's run."""

from pathlib import Path

import pytest

from mlscale.commands.retrain.challenger_training import choose_passes
from mlscale.task_types.registry import get_task_type


def write_history(path: Path, losses: list[float], *, steps: int = 62, first: float = 0.67) -> Path:
    lines = ["step,train/loss,val/loss", f"9,{first},", "19,0.5,"]
    lines += [f"{steps * number - 1},,{loss}" for number, loss in enumerate(losses, 1)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_model_that_learns_slowly_gets_more_passes(tmp_path: Path) -> None:
    # Those of +recipe=multilabel: four fifths of the fall are reached by the eighth of fifteen validations.
    losses = [0.51, 0.53, 0.78, 0.60, 0.62, 0.23, 0.36, 0.106, 0.12, 0.087, 0.076, 0.051, 0.035, 0.036, 0.035]
    path = write_history(tmp_path / "metrics.csv", losses)
    assert choose_passes(path, 32, 490) == 65
    # Half as many samples need as many looks at each of them again, and a limit holds.
    assert choose_passes(path, 32, 245) == 80
    assert choose_passes(path, 32, 5000) == 20


def test_a_model_that_learns_quickly_keeps_twenty(tmp_path: Path) -> None:
    # Those of +recipe=resnet on digits.
    path = write_history(tmp_path / "metrics.csv", [1.1, 0.7, 0.4, 0.25, 0.2, 0.1, 0.04], steps=22, first=2.28)
    assert choose_passes(path, 64, 490) == 20


@pytest.mark.parametrize(
    "content",
    [
        "",
        "step,train/loss\n9,0.5\n",
        "step,val/loss\n61,0.5\n",
        "step,train/loss,val/loss\n9,one,\n61,,0.5\n",
        "a\n1\n",
    ],
)
def test_without_losses_there_are_twenty(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.csv").write_text(content)
    assert choose_passes(tmp_path / "metrics.csv", 32, 490) == 20
    assert choose_passes(tmp_path / "absent.csv", 32, 490) == 20


def test_a_loss_that_never_fell_counts_as_learned_at_once(tmp_path: Path) -> None:
    path = write_history(tmp_path / "metrics.csv", [0.7, 0.8, 0.9])
    assert choose_passes(path, 32, 490) == 20


@pytest.mark.parametrize(("epochs", "passes"), [(1, 5), (2, 10), (4, 20), (30, 20)])
def test_a_champion_of_few_epochs_has_a_challenger_of_few_passes(tmp_path: Path, epochs: int, passes: int) -> None:
    lines = ["epoch,step,train/loss,val/loss", "0,9,5.5,"]
    lines += [f"{number},{205 * number + 204},,{3.0 - number / 100}" for number in range(epochs)]
    (tmp_path / "metrics.csv").write_text("\n".join(lines) + "\n")
    assert choose_passes(tmp_path / "metrics.csv", 16, 2000) == passes


def test_a_language_model_reads_its_window_four_times_at_most(tmp_path: Path) -> None:
    most = get_task_type("language").most_passes
    assert choose_passes(tmp_path / "absent.csv", 16, 2000, most=most) == 4
    lines = ["epoch,step,train/loss,val/loss", "0,9,5.5,", "0,204,,3.0"]
    (tmp_path / "metrics.csv").write_text("\n".join(lines) + "\n")
    assert choose_passes(tmp_path / "metrics.csv", 16, 2000, most=most) == 4
