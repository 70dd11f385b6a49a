"""What strategies can't be combined with, and which of their settings have no effect."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from mlscale.config.checks.strategy_support import check_strategy, collect_strategy_notices


def config(name: str, world_size: int = 2, **settings: Any) -> Any:
    """A config with the settings of a strategy, of the trainer, and of groups by their own names."""
    groups = {key: settings.pop(key) for key in ("callbacks", "compress", "optimizer") if key in settings}
    strategy: dict[str, Any] = {"_target_": f"mlscale.train.strategies.{name}"} | settings.pop("strategy", {})
    node: dict[str, Any] = {
        "strategy": strategy,
        "precision": {"value": settings.pop("precision", "32-true")},
        "trainer": settings,
        "derived": {"world_size": world_size, "accelerator": "cpu"},
    }
    return OmegaConf.create(node | groups)


FREEZE = {"freeze": {"_target_": "mlscale.train.callbacks.Freeze"}}
AVERAGE = {"swa": {"_target_": "pytorch_lightning.callbacks.StochasticWeightAveraging"}}


@pytest.mark.parametrize(
    ("cfg", "fix"),
    [
        (config("fsdp", precision="16-mixed"), "precision=bf16\nstrategy=ddp"),
        (config("fsdp", sync_batchnorm=True), "strategy=ddp\ntrainer.sync_batchnorm=false"),
        (config("fsdp", compress={"int8": {}}), "compress=none, and after the run"),
        (config("fsdp", optimizer={"_target_": "mlscale.train.eight_bit.adamw_8bit"}), "optimizer=adamw\nstrategy=ddp"),
        (config("fsdp", optimizer={"_target_": "bitsandbytes.optim.Lion8bit"}), "optimizer=adamw\nstrategy=ddp"),
        (config("fsdp", 4, strategy={"replicate": 3}), "strategy.replicate=1"),
        (config("fsdp", 4, strategy={"replicate": 4}), "strategy.replicate=1"),
        (config("fsdp", callbacks=AVERAGE), "~callbacks.swa"),
        (config("ddp", strategy={"static_graph": True}, accumulate_grad_batches=2), "strategy.static_graph=false"),
        (config("auto", strategy={"static_graph": True}, callbacks=FREEZE), "strategy.static_graph=false"),
    ],
)
def test_what_can_not_train_is_refused(cfg: Any, fix: str) -> None:
    (problem,) = check_strategy(cfg, cfg.derived.world_size)
    assert problem.fix.startswith(fix)
    assert list(check_strategy(cfg, 1)) == []  # one process has no strategy


@pytest.mark.parametrize(
    "cfg",
    [
        config("fsdp", precision="bf16-mixed", accumulate_grad_batches=4, callbacks=FREEZE, compress=None),
        config("fsdp", 4, strategy={"replicate": 2}),
        config("ddp", optimizer={"_target_": "mlscale.train.eight_bit.adamw_8bit"}),
        config("ddp", strategy={"static_graph": True}, callbacks={"progress": None}),
        config("ddp", precision="16-mixed", compress={"int8": {}}, callbacks=FREEZE),
    ],
)
def test_what_can_train_is_not(cfg: Any) -> None:
    assert list(check_strategy(cfg, cfg.derived.world_size)) == []


@pytest.mark.parametrize(
    ("cfg", "lines"),
    [
        (config("ddp", 1), ["strategy=ddp has no effect with one device"]),
        (config("fsdp", 1, strategy={"cpu_offload": True}), ["strategy=fsdp has no effect with one device"]),
        (config("auto", 1), []),
        (
            config("auto", 1, strategy={"static_graph": True, "gradient_reduction": "bf16"}),
            [f"strategy.{key} has no effect with one device" for key in ("static_graph", "gradient_reduction")],
        ),
        (config("ddp", strategy={"static_graph": True, "gradient_reduction": "bf16"}), []),
        (
            config("ddp", strategy={"static_graph": True, "find_unused_parameters": True}),
            ["strategy.find_unused_parameters has no effect: static_graph finds them in the first step"],
        ),
        (
            config("ddp", strategy={"gradient_reduction": "bf16"}, precision="bf16-true"),
            ["strategy.gradient_reduction has no effect with bf16-true: gradients are in it already"],
        ),
        (
            config("fsdp", strategy={"reduce_dtype": "bf16", "cpu_offload": True}),
            [
                "strategy.reduce_dtype has no effect with 32-true: it is for precision=bf16",
                "strategy.cpu_offload has no effect on cpu: it is for CUDA devices",
            ],
        ),
        (config("fsdp", strategy={"reduce_dtype": "bf16"}, precision="bf16-mixed"), []),
    ],
)
def test_settings_without_effect_are_reported(cfg: Any, lines: list[str]) -> None:
    assert collect_strategy_notices(cfg) == lines
