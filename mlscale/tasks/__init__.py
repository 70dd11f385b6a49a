"""LightningModules and the small models that go with them. Importing this imports no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# For type checkers alone: these modules import torch.
if TYPE_CHECKING:
    from mlscale.tasks.base import Task as Task
    from mlscale.tasks.classification import Classification as Classification
    from mlscale.tasks.language import Language as Language
    from mlscale.tasks.models.gpt import GPT as GPT
    from mlscale.tasks.models.mlp import MLP as MLP
    from mlscale.tasks.models.ngrams import NGrams as NGrams
    from mlscale.tasks.models.resnet import ResNet as ResNet
    from mlscale.tasks.models.tabular import TabularNet as TabularNet
    from mlscale.tasks.models.text_cnn import TextCNN as TextCNN
    from mlscale.tasks.models.unet import UNet as UNet
    from mlscale.tasks.models.vit import ViT as ViT
    from mlscale.tasks.multilabel import Multilabel as Multilabel
    from mlscale.tasks.regression import Regression as Regression
    from mlscale.tasks.schedules import OneCycle as OneCycle
    from mlscale.tasks.schedules import Warmup as Warmup
    from mlscale.tasks.segmentation import Segmentation as Segmentation
    from mlscale.tasks.typed import TypedTask as TypedTask

_HOMES = {
    "Classification": "classification",
    "GPT": "models.gpt",
    "Language": "language",
    "MLP": "models.mlp",
    "Multilabel": "multilabel",
    "NGrams": "models.ngrams",
    "OneCycle": "schedules",
    "Regression": "regression",
    "ResNet": "models.resnet",
    "Segmentation": "segmentation",
    "TabularNet": "models.tabular",
    "Task": "base",
    "TextCNN": "models.text_cnn",
    "TypedTask": "typed",
    "UNet": "models.unet",
    "ViT": "models.vit",
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
    "TypedTask",
    "UNet",
    "ViT",
    "Warmup",
]


# PEP 562: Python calls this only for names that the module does not hold.
def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
