"""The only module where a value depends on others: devices, batch, steps. Raises every problem of tier 2 at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from omegaconf import DictConfig, OmegaConf

from mlscale.config.checks.bounds import check_single_process
from mlscale.config.checks.compile_support import check_compile_support
from mlscale.config.checks.data_model_fit import check_data_fit
from mlscale.config.checks.strategy_support import check_strategy
from mlscale.config.metric_choice import check_metric_direction, derive_metric
from mlscale.config.targets import takes_group
from mlscale.errors import MLScaleError, raise_all

# Facts that a model or a task is built from.
OF_THE_DATA = (
    "num_classes", "channels", "height", "width", "features", "length", "vocab_size", "targets", "tokenizer",
    "bytes_per_token", "document_end", "padding_share",
)  # fmt: skip
_SMALL_TABLE = 1 << 16  # numbers in a batch of a table, up to which one thread is faster than several
# The same, one for each class or channel.
LISTS_OF_THE_DATA = ("class_names", "class_counts", "mean", "std")


class Devices(Protocol):
    """The facts about a machine that are read here (see `mlscale.launch.local_devices.LocalDevices`)."""

    @property
    def cuda(self) -> int: ...
    @property
    def mps(self) -> bool: ...
    @property
    def cores(self) -> int: ...
    @property
    def cuda_bf16(self) -> bool: ...
    def count_devices(self, accelerator: str) -> int | None: ...


class StartedRanks(Protocol):
    """The ranks that another launcher has started (see `mlscale.commands.train.ranks.RankLayout`)."""

    @property
    def devices(self) -> int: ...
    @property
    def nodes(self) -> int: ...
    @property
    def sharing(self) -> int: ...
    @property
    def ignores_thread_variable(self) -> bool: ...


@dataclass(frozen=True)
class ProcessLayout:
    """The number of processes of a run, and the device and threads of each.

    Attributes:
        world_size: processes that train together.
        accelerator: cpu, cuda or mps.
        threads: CPU threads of one process: its share of the cores, or OMP_NUM_THREADS.
        nodes: machines, each with the same number of processes.
    """

    world_size: int
    accelerator: str
    threads: int
    nodes: int = 1


def derive_values(
    cfg: DictConfig, facts: Mapping[str, Any] | None, machine: Devices, started: StartedRanks | None = None
) -> dict[str, Any]:
    """Return the values of the config's `derived` node, except those that the run folder gives.

    Args:
        facts: `DataFacts` as a mapping; None for a user's DataModule that reports no facts.
        started: the ranks that another launcher has started; None where the run starts its own processes.

    Raises:
        MLScaleError: everything that the machine lacks, and all keys that contradict each other.
    """
    # Collected, not raised one by one: a user fixes all of them before the next start.
    problems: list[MLScaleError] = []
    layout = _derive_layout(cfg, machine, problems, started)
    _check_precision(cfg, layout, machine, problems)
    per_device = _derive_per_device_batch(cfg, layout, problems, can_choose_devices=started is None)
    steps = _derive_steps_per_epoch(cfg, facts, problems)
    ignores_variable = started is not None and started.ignores_thread_variable
    features = (facts or {}).get("features")
    if features and features * (per_device or 1) <= _SMALL_TABLE and not _read_typed_threads(ignores_variable):
        layout = replace(layout, threads=1)
    batches = steps * (cfg.trainer.get("accumulate_grad_batches", 1) or 1) if steps else None
    problems += [
        *check_validation_interval(cfg, batches),
        *check_data_fit(cfg, facts),
        *check_compile_support(cfg),
        *check_strategy(cfg, layout.world_size),
        *check_metric_direction(cfg),
    ]
    known = {name: (facts or {}).get(name) for name in OF_THE_DATA}
    # Unknown values are None, not absent: an interpolation of an absent key would fail.
    derived = {
        **asdict(layout),
        **known,
        "train_samples": (facts or {}).get("train_samples"),
        "val_samples": (facts or {}).get("val_samples"),
        **{name: list((facts or {}).get(name) or []) or None for name in LISTS_OF_THE_DATA},
        "data_version": (facts or {}).get("version"),
        "decode_version": (facts or {}).get("decode_version"),
        "label_digest": (facts or {}).get("label_digest"),
        "per_device_batch": per_device,
        "steps_per_epoch": steps,
        "total_steps": _derive_total_steps(cfg, steps),
        **derive_metric(cfg, (facts or {}).get("class_counts") or ()),
    }
    raise_all(problems or list(check_underived(cfg, derived)))
    return derived


def _derive_layout(
    cfg: DictConfig, machine: Devices, problems: list[MLScaleError], started: StartedRanks | None
) -> ProcessLayout:
    requested = str(cfg.trainer.get("accelerator", "auto"))
    # `gpu` is Lightning's word for whichever GPU the machine has; on a machine without one it means cuda, so that the
    # error below names the usual device.
    best = "cuda" if machine.cuda else "mps" if machine.mps else "cpu"
    accelerator = {"auto": best, "gpu": "mps" if best == "mps" else "cuda"}.get(requested, requested)
    has = machine.count_devices(accelerator)
    if accelerator not in ("cpu", "cuda", "mps"):
        problems.append(
            MLScaleError(
                f"unknown accelerator '{requested}'",
                where="trainer.accelerator",
                why="it is one of auto, cpu, gpu, cuda, mps",
                fix="trainer.accelerator=auto",
            )
        )
        # A layout that raises no problems of its own: the unknown accelerator is the one to report.
        return ProcessLayout(1, "cpu", machine.cores)
    devices = started.devices if started else _resolve_devices(cfg, has, problems)
    if has == 0:
        problems.append(
            MLScaleError(
                f"this machine has no {accelerator} device",
                where=f"trainer.accelerator={requested}",
                why="torch finds none; `mlscale env` prints what it finds",
                fix="trainer.accelerator=cpu",
            )
        )
    elif has is not None and devices > has:
        problems.append(
            MLScaleError(
                f"this machine has {has} {accelerator} device{'s' if has != 1 else ''}, {devices} were asked for",
                where=f"trainer.devices={devices}",
                why=f"on the CPU any number will do: {devices} slow processes",
                fix=f"trainer.devices={has}\ntrainer.accelerator=cpu",
            )
        )
    if started is None:
        problems += check_single_process(cfg, devices)
        return ProcessLayout(devices, accelerator, _choose_threads(machine.cores // devices))
    problems += check_single_process(cfg, devices * started.nodes)
    threads = _choose_threads(machine.cores // started.sharing, ignores_variable=started.ignores_thread_variable)
    return ProcessLayout(devices * started.nodes, accelerator, threads, started.nodes)


def _choose_threads(share: int, *, ignores_variable: bool = False) -> int:
    return _read_typed_threads(ignores_variable) or max(1, share)


def _read_typed_threads(ignores_variable: bool) -> int:
    # Nested OpenMP settings such as "4,2" are not a number: the share of the cores is used then.
    typed = "" if ignores_variable else os.environ.get("OMP_NUM_THREADS", "")
    return int(typed) if typed.isdigit() else 0


def _resolve_devices(cfg: DictConfig, has: int | None, problems: list[MLScaleError]) -> int:
    devices = cfg.trainer.get("devices", 1)
    # Both mean all devices in Lightning. A CPU has no number of devices (`has` is None): it gets one process.
    if devices in ("auto", -1):
        return max(1, has if has is not None else 1)
    # Lightning's Trainer takes no other value; a class of the user's own may say so.
    if str(devices).isdigit() and int(devices):
        return int(devices)
    what, where = f"trainer.devices={devices} is not a number of processes", "trainer.devices"
    why = "which cards they use, CUDA_VISIBLE_DEVICES=0,3 chooses in front of the command"
    problems.append(MLScaleError(what, where=where, why=why, fix="trainer.devices=2"))
    return 1


def _check_precision(cfg: DictConfig, layout: ProcessLayout, machine: Devices, problems: list[MLScaleError]) -> None:
    value = str(cfg.precision.value)
    on_cpu = value == "16-mixed" and cfg.precision.get("on_cpu")
    if layout.accelerator == "cpu" and value.startswith("16") and not on_cpu:
        problems.append(
            MLScaleError(
                f"float16 ({value}) does not train on a CPU",
                where="precision",
                why="a CPU has no float16 units: Lightning would compute in bfloat16 without a word"
                + ("; precision.on_cpu computes it all the same, slowly" if value == "16-mixed" else ""),
                fix="precision=bf16" + ("\nprecision.on_cpu=true" if value == "16-mixed" else ""),
            )
        )
    elif layout.accelerator == "cuda" and value.startswith("bf16") and machine.cuda and not machine.cuda_bf16:
        problems.append(
            MLScaleError(
                f"this GPU does not compute bfloat16 ({value})",
                where="precision",
                fix="precision=fp16\nprecision=fp32",
            )
        )


def _derive_per_device_batch(
    cfg: DictConfig, layout: ProcessLayout, problems: list[MLScaleError], *, can_choose_devices: bool
) -> int | None:
    batch = (cfg.get("data") or {}).get("batch_size")
    if batch is None:
        return None
    accumulate = cfg.trainer.get("accumulate_grad_batches", 1)
    if batch < 1 or accumulate < 1:
        problems.append(
            MLScaleError(
                "a batch has at least one sample, and is one forward pass or more",
                where=f"data.batch_size={batch}, trainer.accumulate_grad_batches={accumulate}",
                fix="data.batch_size=64",
            )
        )
        return None
    parts = layout.world_size * accumulate
    if batch % parts:
        # Rounded, not floored: the suggested batch stays as close as possible to the one that was tuned.
        nearest = max(parts, round(batch / parts) * parts)
        # A run that is resumed keeps its batch: then the number of processes is what may change.
        is_resumed = cfg.get("resume") not in (None, "auto")
        fixes = [] if is_resumed else [f"data.batch_size={nearest}"]
        if batch % accumulate == 0 and (is_resumed or not can_choose_devices):
            fitting = next(size for size in range(layout.world_size, 0, -1) if batch % (size * accumulate) == 0)
            processes = f"start {fitting} process{'es' if fitting != 1 else ''}"
            fixes.append(f"trainer.devices={fitting}" if can_choose_devices else processes)
        problems.append(
            MLScaleError(
                f"data.batch_size={batch} does not divide by {parts}",
                where="data.batch_size",
                why=f"it is global: {layout.world_size} devices × {accumulate} accumulated passes share it evenly",
                fix=", or ".join(fixes),
            )
        )
        return None
    return int(batch // parts)


def count_epoch_steps(data: Mapping[str, Any], train_samples: int) -> tuple[int, int]:
    """Return the optimizer steps of an epoch, and the number of samples left over because they fill no batch.

    Args:
        data: the config's node of that name.
    """
    samples, batch = data.get("epoch_samples") or train_samples, data["batch_size"]
    if data.get("last") == "pad":
        return -(-samples // batch), 0
    return samples // batch, samples % batch


def _derive_steps_per_epoch(
    cfg: DictConfig, facts: Mapping[str, Any] | None, problems: list[MLScaleError]
) -> int | None:
    if not facts or not (cfg.get("data") or {}).get("batch_size"):
        return None
    samples, batch = facts["train_samples"], cfg.data.batch_size
    steps, _ = count_epoch_steps(cfg.data, samples)
    if not steps and cfg.data.get("epoch_samples"):
        problems.append(
            MLScaleError(
                f"an epoch of {cfg.data.epoch_samples} samples makes no batch of {batch}",
                where="data.epoch_samples",
                fix=f"data.epoch_samples={batch}\ndata.last=pad",
            )
        )
        return None
    if not steps:
        problems.append(
            MLScaleError(
                f"{samples} training samples make no batch of {batch}",
                where="data.batch_size",
                fix=f"data.batch_size={samples}",
            )
        )
        return None
    accumulate = cfg.trainer.get("accumulate_grad_batches", 1) or 1
    passes = steps * accumulate
    # Lightning's types decide: an int is a number of batches, a float a share of them. `overfit_batches` replaces the
    # other.
    limit = cfg.trainer.get("overfit_batches") or cfg.trainer.get("limit_train_batches")
    if limit is not None:
        passes = min(passes, int(limit) if isinstance(limit, int) else int(passes * limit))
    # Rounded up: Lightning takes an optimizer step at the last batch of an epoch even when the accumulation is
    # incomplete.
    return int(max(1, -(-passes // accumulate)))


def _derive_total_steps(cfg: DictConfig, steps_per_epoch: int | None) -> int | None:
    max_steps = cfg.trainer.get("max_steps", -1)
    if steps_per_epoch is None:
        return max_steps if max_steps and max_steps > 0 else None
    epochs = cfg.trainer.get("max_epochs")
    total = steps_per_epoch * epochs if epochs and epochs > 0 else None
    if max_steps and max_steps > 0:
        total = min(total, max_steps) if total else max_steps
    return total


def check_validation_interval(cfg: DictConfig, batches: int | None) -> Iterator[MLScaleError]:
    """Yield the problem of an interval in batches that is longer than an epoch.

    Args:
        batches: of one device in an epoch; None where they are not known.
    """
    interval, every = cfg.trainer.get("val_check_interval"), cfg.trainer.get("check_val_every_n_epoch", 1)
    is_count = isinstance(interval, int) and not isinstance(interval, bool)
    if batches is None or not is_count or every is None or interval <= batches:
        return
    # Without a limit of epochs every interval is reached.
    epochs = cfg.trainer.get("max_epochs") or -1
    is_reached = epochs < 0 or interval <= batches * epochs
    yield MLScaleError(
        f"an epoch has {batches} batches, and is validated after {interval}",
        where=f"trainer.val_check_interval={interval}",
        why="it counts batches within an epoch; across epochs with trainer.check_val_every_n_epoch=null",
        fix="trainer.check_val_every_n_epoch=null" if is_reached else "trainer.val_check_interval=1.0",
    )


_OPTIONAL = frozenset({"document_end"})
"""Facts that data need not have, and without which a model is built all the same."""
_TAKEN = re.compile(r"\$\{derived\.(\w+)\}")


def check_underived(cfg: DictConfig, derived: Mapping[str, Any]) -> Iterator[MLScaleError]:
    """Yield one problem for each key of a model, optimizer or scheduler in use whose derived value is not known."""
    for group in ("model", "optimizer", "scheduler"):
        # A node that the task does not take is never built, so its unknown values do not matter.
        if not cfg.get(group) or not takes_group(cfg.get("task"), group):
            continue
        for key, value in OmegaConf.to_container(cfg[group], resolve=False).items():  # type: ignore[union-attr]
            taken = _TAKEN.fullmatch(value) if isinstance(value, str) else None
            if taken and taken[1] not in _OPTIONAL and taken[1] in derived and derived[taken[1]] is None:
                yield _create_underived_problem(f"{group}.{key!s}", taken[1])


def _create_underived_problem(path: str, name: str) -> MLScaleError:
    if name in ("total_steps", "steps_per_epoch"):
        why, fix = "the run's length is not known", "trainer.max_epochs=10, trainer.max_steps=1000, or scheduler=none"
    else:
        why, fix = "it is taken from the data, which does not report it", f"{path}=<int>"
    return MLScaleError(f"'{path}' is not known", where=path, why=why, fix=fix)
