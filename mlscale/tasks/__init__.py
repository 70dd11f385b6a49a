"""LightningModules and the small models that go with them. Importing this imports no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlscale.tasks.base import Task as Task
    from mlscale.tasks.classification import Classification as Classification
    from mlscale.tasks.gpt import GPT as GPT
    from mlscale.tasks.language import Language as Language
    from mlscale.tasks.mlp import MLP as MLP
    from mlscale.tasks.multilabel import Multilabel as Multilabel
    from mlscale.tasks.ngrams import NGrams as NGrams
    from mlscale.tasks.regression import Regression as Regression
    from mlscale.tasks.resnet import ResNet as ResNet
    from mlscale.tasks.schedules import OneCycle as OneCycle
    from mlscale.tasks.schedules import Warmup as Warmup
    from mlscale.tasks.segmentation import Segmentation as Segmentation
    from mlscale.tasks.tabular import TabularNet as TabularNet
    from mlscale.tasks.text_cnn import TextCNN as TextCNN
    from mlscale.tasks.unet import UNet as UNet
    from mlscale.tasks.vit import ViT as ViT

_HOMES = {
    "Classification": "classification",
    "GPT": "gpt",
    "Language": "language",
    "MLP": "mlp",
    "Multilabel": "multilabel",
    "NGrams": "ngrams",
    "OneCycle": "schedules",
    "Regression": "regression",
    "ResNet": "resnet",
    "Segmentation": "segmentation",
    "TabularNet": "tabular",
    "Task": "base",
    "TextCNN": "text_cnn",
    "UNet": "unet",
    "ViT": "vit",
    "Warmup": "schedules",
}

__all__ = [
    "GPT",
    "MLP",
    "Classification",
    "Language",
    "Multilabel",
    "NGrams",
    "OneCycle",
    "Regression",
    "ResNet",
    "Segmentation",
    "TabularNet",
    "Task",
    "TextCNN",
    "UNet",
    "ViT",
    "Warmup",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
