"""Requirements of data=dali: an augmentation that DALI can do, its package, and a GPU where one is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Protocol

from omegaconf import DictConfig

from mlscale.config.checks.checked_config import CheckedConfig
from mlscale.config.schema.target_nodes import Node, iterate_nodes, join_path
from mlscale.errors import Exit, MLScaleError, raise_all

DALI_TARGETS = frozenset({"mlscale.data.Dali", "mlscale.data.dali.dali_module.Dali"})
_OWN = frozenset({"mlscale.data.Augment", "mlscale.data.RandomCrop"})
_V1, _V2 = "torchvision.transforms.", "torchvision.transforms.v2."
COUNTERPARTS = frozenset({
    "AutoAugment", "ColorJitter", "Compose", "Grayscale", "Identity", "RandAugment", "RandomAdjustSharpness",
    "RandomAffine", "RandomApply", "RandomAutocontrast", "RandomChoice", "RandomEqualize", "RandomGrayscale",
    "RandomHorizontalFlip", "RandomInvert", "RandomOrder", "RandomPosterize", "RandomRotation", "RandomSolarize",
    "RandomVerticalFlip", "TrivialAugmentWide",
})  # fmt: skip
"""The transforms of torchvision.transforms.v2 whose operations DALI has, too."""
_CROPS = frozenset({"RandomResizedCrop", "RandomCrop", "CenterCrop", "Resize"})
_INTERPOLATIONS = ("nearest", "bilinear", 0, 2)


class CudaDevices(Protocol):
    """The facts about a machine that are read here (see `mlscale.launch.local_devices.LocalDevices`)."""

    @property
    def cuda(self) -> int: ...


def check_dali_augmentation(config: CheckedConfig) -> Iterator[MLScaleError]:
    """Yield a problem for each part of the augmentation that DALI has no counterpart for."""
    data, augment = config.tree.get("data"), config.tree.get("augment")
    if not (isinstance(data, dict) and data.get("_target_") in DALI_TARGETS and isinstance(augment, dict)):
        return
    for node in iterate_nodes({"augment": augment}, "", config.fields):
        # Without the prefix it is the name of a transform; a target that has none keeps its path.
        name = node.target.removeprefix(_V2)
        if node.target not in _OWN and (name == node.target or name not in COUNTERPARTS):
            yield _create_target_error(config, node)
        else:
            yield from _check_values(config, node)


def _create_target_error(config: CheckedConfig, node: Node) -> MLScaleError:
    path = join_path(node.path, "_target_")
    name = node.target.rpartition(".")[2]
    if node.target == f"{_V1}{name}" and name in COUNTERPARTS:
        fix = f"{path}={_V2}{name}"
    elif name in _CROPS:
        fix = "augment=crop, whose crop is made while decoding; or data=webdataset"
    else:
        fix = "data=webdataset, which runs every transform"
    return MLScaleError(
        f"{node.target or path} has no counterpart in DALI",
        where=config.describe_origin(path),
        why=f"data=dali does what mlscale.data's own augmentations do, and of {_V2[:-1]}: "
        f"{', '.join(sorted(COUNTERPARTS))}",
        fix=fix,
    )


def _check_values(config: CheckedConfig, node: Node) -> Iterator[MLScaleError]:
    """Yield a problem for each setting of a transform that DALI has no counterpart for."""
    for key, value in node.value.items():
        # By what torchvision calls them in all of its transforms.
        is_refused = {
            "hue": bool(value),
            "expand": value is True,
            "fill": value not in (None, 0, 0.0),
            "interpolation": value is not None and _get_word(value) not in _INTERPOLATIONS,
        }
        if is_refused.get(key):
            path = join_path(node.path, key)
            yield MLScaleError(
                f"{path}={value} has no counterpart in DALI",
                where=config.describe_origin(path),
                why="it moves or colours pixels in another way than torchvision does",
                fix=f"leave {path} out; or data=webdataset, which runs it",
            )


def _get_word(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def check_dali_machine(cfg: DictConfig, machine: CudaDevices) -> None:
    """Check that this machine can train on data=dali; other data needs nothing.

    Raises:
        MLScaleError: the package is not installed, or the GPU that is to decode is not one that trains.
    """
    # Before the data is read, which may take minutes.
    data: Mapping[str, object] = cfg.get("data") or {}
    if data.get("_target_") not in DALI_TARGETS:
        return
    problems = [] if _is_installed() else [create_missing_error()]
    accelerator = str(cfg.trainer.get("accelerator", "auto"))
    if data.get("device") == "gpu" and not (machine.cuda and accelerator in ("auto", "gpu", "cuda")):
        # Pixels would have to come back to the CPU, which costs more than decoding there.
        problems.append(
            MLScaleError(
                "data.device=gpu needs a CUDA device that trains",
                where="data.device",
                why=f"trainer.accelerator={accelerator}"
                if machine.cuda
                else "torch finds no CUDA device on this machine; `mlscale env` prints what it finds",
                fix="data.device=cpu",
                exit=Exit.USER if machine.cuda else Exit.ENVIRONMENT,
            )
        )
    raise_all(problems)


def _is_installed() -> bool:
    # `nvidia` is a namespace of several packages, which may be absent altogether.
    return find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None


def create_missing_error() -> MLScaleError:
    """Return the error of data=dali without its package."""
    return MLScaleError(
        "the package nvidia-dali-cuda120 is not installed",
        where="data=dali",
        why="it decodes and augments the training images",
        fix="pip install 'mlscale[dali]'; or data=webdataset, which needs no package",
        exit=Exit.ENVIRONMENT,
    )
