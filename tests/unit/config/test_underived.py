"""What can't be taken from the data or the run's length is told before anything is built."""

import pytest
from omegaconf import DictConfig, OmegaConf

from mlscale.config.derive import check_underived


def config(task: str = "mlscale.tasks.Classification") -> DictConfig:
    return OmegaConf.create(
        {
            "task": {"_target_": task},
            "model": {"_target_": "mlscale.tasks.ResNet", "num_classes": "${derived.num_classes}", "blocks": 1},
            "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1},
            "scheduler": {"_target_": "x", "_partial_": True, "total_steps": "${derived.total_steps}"},
        }
    )


@pytest.mark.parametrize(
    ("known", "fixes"),
    [
        ({"num_classes": 10, "total_steps": 220}, []),
        ({"num_classes": None, "total_steps": 220}, ["model.num_classes=<int>"]),
        (
            {"num_classes": 10, "total_steps": None},
            ["trainer.max_epochs=10, trainer.max_steps=1000, or scheduler=none"],
        ),
    ],
)
def test_each_key_that_is_not_known(known: dict[str, int | None], fixes: list[str]) -> None:
    assert [problem.fix for problem in check_underived(config(), known)] == fixes


def test_a_part_that_nobody_takes_needs_nothing() -> None:
    own = config(task="pytorch_lightning.LightningModule")
    assert not list(check_underived(own, {"num_classes": None, "total_steps": None}))
