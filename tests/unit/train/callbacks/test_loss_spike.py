"""Loss spikes: told once, with their samples; noise and a falling loss are none."""

import statistics
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlscale.errors import Exit, MLScaleError
from mlscale.tasks import Classification
from mlscale.train.callbacks import LossSpike, TrainMetrics, loss_spike
from tests.unit.fitting import SGD, batches, classifier, fit, trainer
from tests.unit.train.callbacks.test_train_metrics import Recorder


def spikes(losses: list[float], **settings: Any) -> list[int]:
    watch = LossSpike(**settings)
    return [index for index, loss in enumerate(losses) if watch.is_spike(loss)]


def noise(count: int, seed: int = 0) -> list[float]:
    generator = torch.Generator().manual_seed(seed)
    values: list[float] = torch.randn(count, generator=generator).tolist()
    return values


def test_a_jump_is_one_spike_however_long_and_the_next_is_another() -> None:
    losses = [1 + 0.1 * x for x in noise(300)]
    losses[150:153] = [9.0, 8.0, 7.0]
    losses[200] = 9.0
    assert spikes(losses) == [150, 200]


def test_noise_a_fall_and_a_plateau_have_none() -> None:
    assert spikes([2 + 0.3 * x for x in noise(5000, 1)]) == []
    assert spikes([5 * 0.99**step * (1 + 0.1 * x) for step, x in enumerate(noise(1000, 2))]) == []
    assert spikes([0.0] * 50 + [1e-9] + [0.5] * 50, least=10.0) == [50]  # nothing but zeros: any rise is one
    assert spikes([1.0] * 60 + [1.4] * 5) == []  # a rise below `least`, though the deviation is nought
    assert spikes([1.0] * 5 + [9.0]) == []  # too few to know


def test_a_new_level_is_normal_after_a_while() -> None:
    losses = [1 + 0.05 * x for x in noise(200)] + [4 + 0.2 * x for x in noise(200, 1)]
    assert spikes(losses) == [200]


def test_no_number_is_not_its_business() -> None:
    assert spikes([1.0] * 40 + [float("nan"), float("inf")] + [1.0] * 40) == []


@pytest.mark.parametrize("k", [1.0, 3.0])
def test_the_rule_is_median_and_mad_as_they_are_written(k: float) -> None:
    watch, seen = LossSpike(k=k, window=21, least=0.0), list[float]()
    for loss in noise(600, 3):
        window = sorted(seen[-21:])
        if len(window) in (5, 7, 9, 11, 13, 15, 17, 19, 21):  # an even number has two medians
            median = statistics.median(window)
            deviation = statistics.median(abs(value - median) for value in window)
            assert watch._is_above(loss) == (loss - median > k * 1.4826 * deviation)
        watch.is_spike(loss)
        seen.append(loss)


def spiky() -> list[dict[str, Any]]:
    """Batches of which number 40 has inputs a hundred times too large, with labels that they make wrong."""
    data = batches(50)
    data[40]["x"] = data[40]["x"] * 300
    return data


def test_a_warning_names_the_step_and_the_samples(capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder()
    run = trainer(logger=recorder, callbacks=[TrainMetrics(), LossSpike()])
    fit(run, classifier(**frozen()), spiky())
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert "in epoch 0, batch 40 (optimizer step 41); its samples: shard/40-0, shard/40-1" in line
    assert recorder.of("train/loss_spikes")[-1] == (49, 1)
    assert run.callback_metrics["train/loss_spikes"] == 1


def test_it_can_stop_the_run() -> None:
    with pytest.raises(MLScaleError, match="batch 40") as reported:
        fit(trainer(callbacks=[TrainMetrics(), LossSpike(stop=True)]), classifier(**frozen()), spiky())
    assert reported.value.exit == Exit.DIVERGED
    assert "shard/40-0" in reported.value.why


@pytest.mark.parametrize(("usual", "printed"), [(0.0, "a median of 0 "), (-2.0, "a median of -2 ")])
def test_a_median_that_is_nought_or_below_has_no_ratio(
    capsys: pytest.CaptureFixture[str], usual: float, printed: str
) -> None:
    """A hinge loss of a model that has learnt all is nought; a likelihood of densities is below it."""

    class Level(Classification):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss: Tensor = 0 * self(batch["x"]).sum() + batch["x"][0, 0]
            return loss

    data = [{"x": torch.full((2, 3), usual), "y": torch.zeros(2, dtype=torch.int64)} for _ in range(50)]
    data[40]["x"] += 7
    fit(trainer(callbacks=[TrainMetrics(), LossSpike()]), Level(2, model=nn.Linear(3, 2), optimizer=SGD), data)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert f"the loss is {usual + 7:g}, compared with {printed}" in line


def test_on_an_accelerator_losses_are_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    class Far(Tensor):
        is_cpu = False

    monkeypatch.setattr(loss_spike, "get_detached_loss", lambda outputs: outputs["loss"].detach().as_subclass(Far))
    run = trainer(callbacks=[TrainMetrics(), LossSpike(stop=True)], log_every_n_steps=25)
    with pytest.raises(MLScaleError, match=r"batch 40 \(optimizer step 41\)"):
        fit(run, classifier(**frozen()), spiky())


@pytest.mark.parametrize("wrong", [{"k": 0.0}, {"window": 3}, {"least": -1.0}])
def test_settings_that_are_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(MLScaleError, match=r"callbacks\.loss_spike has"):
        LossSpike(**wrong)


def frozen() -> dict[str, Any]:
    """A task that hardly learns: what stands out is the data's."""
    return {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=1e-6)}
