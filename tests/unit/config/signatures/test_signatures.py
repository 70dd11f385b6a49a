"""Signatures read from source equal what Python says after importing."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from mlscale.config.signatures.imported_targets import inspect_imported_target
from mlscale.config.signatures.signatures import NO_LITERAL, Kind, Signature, Unknown, read_signature
from mlscale.config.signatures.unpacked_keywords import inspect_signature

TARGETS = [
    "torch.optim.SGD",
    "torch.optim.AdamW",
    "torch.optim.Adam",
    "torch.optim.RMSprop",
    "torch.optim.LBFGS",
    "torch.optim.lr_scheduler.OneCycleLR",
    "torch.optim.lr_scheduler.CosineAnnealingLR",
    "torch.optim.lr_scheduler.StepLR",
    "torch.optim.lr_scheduler.ReduceLROnPlateau",
    "torch.optim.lr_scheduler.SequentialLR",
    "torch.optim.swa_utils.AveragedModel",
    "torch.nn.Linear",
    "torch.nn.Conv2d",
    "torch.nn.ReLU",
    "torch.nn.CrossEntropyLoss",
    "torch.nn.TransformerEncoderLayer",
    "torch.utils.data.DataLoader",
    "torch.nn.functional.relu",
    "torch.nn.init.kaiming_normal_",
    "pytorch_lightning.Trainer",
    "pytorch_lightning.LightningModule",
    "pytorch_lightning.LightningDataModule",
    "pytorch_lightning.callbacks.ModelCheckpoint",
    "pytorch_lightning.callbacks.EarlyStopping",
    "pytorch_lightning.callbacks.LearningRateMonitor",
    "pytorch_lightning.loggers.CSVLogger",
    "pytorch_lightning.loggers.WandbLogger",
    "pytorch_lightning.strategies.DDPStrategy",
    "torchvision.models.resnet18",
    "torchvision.models.vit_b_16",
    "torchvision.models.googlenet",
    "torchvision.models.ResNet",
    "torchvision.models.resnet.resnet50",
    "torchvision.transforms.v2.RandomResizedCrop",
    "torchvision.datasets.ImageFolder",
    "torchmetrics.Accuracy",
    "torchmetrics.classification.MulticlassAccuracy",
    "torchmetrics.MetricCollection",
    "torchmetrics.functional.accuracy",
    "mlscale.data.Digits",
    "mlscale.data.WebDataset",
    "mlscale.data.Augment",
    "mlscale.tasks.ResNet",
    "mlscale.tasks.Classification",
    "mlscale.train.callbacks.Progress",
    "mlscale.train.loggers.csv",
    "mlscale.train.strategies.ddp",
]
UNPACKED = ("mlscale.data.Digits", "mlscale.data.WebDataset")


@pytest.mark.parametrize("target", TARGETS)
def test_equal_to_inspect(target: str) -> None:
    module, _, name = target.rpartition(".")
    imported = getattr(importlib.import_module(module), name)
    expected = inspect_signature(imported).parameters.values()
    unpacked = "Unpack" in str(inspect.signature(imported))
    assert unpacked == (target in UNPACKED)  # of all others it is `inspect.signature` itself
    found = read_signature(target)
    assert isinstance(found, Signature), found
    assert [(item.name, item.kind) for item in found.parameters] == [(item.name, item.kind) for item in expected]
    for mine, theirs in zip(found.parameters, expected, strict=True):
        variadic = theirs.kind in (Kind.VAR_POSITIONAL, Kind.VAR_KEYWORD)
        assert mine.required == (theirs.default is theirs.empty and not variadic), mine
        if mine.default is not NO_LITERAL:
            assert mine.default == theirs.default, mine


def test_open_where_it_takes_anything() -> None:
    resnet, trainer = read_signature("torchvision.models.resnet18"), read_signature("pytorch_lightning.Trainer")
    assert isinstance(resnet, Signature)
    assert resnet.open
    assert isinstance(trainer, Signature)
    assert not trainer.open


@pytest.mark.parametrize(
    ("target", "missing", "better"),
    [
        ("torch.optim.AdamWW", "AdamWW", "torch.optim.AdamW"),
        ("torch.optmi.AdamW", "optmi", "torch.optim.AdamW"),
        ("torchh.optim.AdamW", "torchh", "torch.optim.AdamW"),
        ("lmcale.tasks.Regression", "lmcale", "mlscale.tasks.Regression"),
        ("mlscel.train.loggers.csv", "mlscel", "mlscale.train.loggers.csv"),
        ("torcv.optim.Nothing", "torcv", None),
        ("nosuchthing.optim.SGD", "nosuchthing", None),
        ("torch.optim.sgd", "torch.optim.sgd", "torch.optim.sgd.SGD"),
        ("pytorch_lightning.trainer", "pytorch_lightning.trainer", None),
        ("mlscale.tasks.Clasification", "Clasification", "mlscale.tasks.Classification"),
        ("mlscale.data.Digit", "Digit", "mlscale.data.Digits"),
        ("mlscale.dta.Digits", "dta", "mlscale.data.Digits"),
        ("pytorch_lightning.callbacks.ModelCheckpont", "ModelCheckpont", "pytorch_lightning.callbacks.ModelCheckpoint"),
    ],
)
def test_names_the_part_that_fails(target: str, missing: str, better: str | None) -> None:
    found = read_signature(target)
    assert isinstance(found, Unknown)
    assert (found.missing, found.better) == (missing, better)


@pytest.mark.parametrize("target", ["torch.relu", "torch.device", "builtins.dict", "collections.OrderedDict"])
def test_says_nothing_of_what_source_cannot_tell(target: str) -> None:
    found = read_signature(target)
    assert isinstance(found, Unknown)
    assert found.missing == ""


OWN = """
import functools
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, ClassVar, Unpack

from shopware.base import *
from shopware import base as renamed

if TYPE_CHECKING:
    from shopware.lazy import Late

try:
    from no_such_package import Maybe
except ImportError:
    class Maybe:
        def __init__(self, a): ...

def keeps(fn):
    @functools.wraps(fn)
    def inner(*args, **kwargs):
        return fn(*args, **kwargs)
    return inner

def hides(fn):
    return lambda anything: fn(anything)

@keeps
def kept(a, /, b: int = 1, *, c: "str | None" = None): ...

@hides
def hidden(a): ...

class Child(renamed.Parent[int]):
    x = 1

class Own(Child):
    def __init__(self, own, **kwargs): ...
    @classmethod
    def make(cls, size: int): ...
    @staticmethod
    def still(size: int): ...

class FromC(memoryview.nothing): ...

@dataclass
class Settings:
    shared: ClassVar[int] = 0
    a: int
    b: list = field(default_factory=list)
    hidden: int = field(init=False, default=0)
    _: KW_ONLY
    c: float = 0.5

@dataclass(kw_only=True)
class More(Settings):
    d: str

def lost(**order: Unpack[Missing]): ...

Alias = Own
def __getattr__(name): ...
__all__ = ["Late", "Own"]
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    package = folder / "shopware"
    package.mkdir()
    (package / "__init__.py").write_text(OWN)
    (package / "base.py").write_text(
        dedent("""
        from typing import Generic, TypeVar
        T = TypeVar("T")
        class Parent(Generic[T]):
            def __init__(self, inherited: float = 1e-3): ...
        def starred(z): ...
        """)
    )
    (package / "lazy.py").write_text("class Late:\n    def __init__(self, late: int): ...\n")
    return folder


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("kept", "a, b, c"),
        ("hidden", "a ..."),
        ("Child", "inherited"),
        ("Parent", "inherited"),
        ("starred", "z"),
        ("Own", "own, kwargs ..."),
        ("Own.make", "size"),
        ("Own.still", "size"),
        ("Alias", "own, kwargs ..."),
        ("Maybe", "a"),
        ("Late", "late"),
        ("FromC", " ..."),
        ("Settings", "a, b, c"),
        ("More", "a, b, c, d"),
        ("lost", "order ..."),
        ("renamed.Parent", "inherited"),
        ("base.starred", "z"),
    ],
)
def test_own_code(own: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.syspath_prepend(own)
    found = read_signature(f"shopware.{name}")
    assert isinstance(found, Signature), found
    assert ", ".join(item.name for item in found.parameters) + (" ..." if found.open else "") == text


POSTAL = """
from typing import NotRequired, Required, TypedDict, Unpack

class Order(TypedDict):
    item: str
    amount: NotRequired[int]

class Express(Order, total=False):
    hours: Required[float]
    note: "str | None"

def send(shop: str, **order: Unpack[Express]): ...
"""


def test_keywords_of_a_typed_dict_are_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "postal.py").write_text(POSTAL)
    monkeypatch.syspath_prepend(tmp_path)
    found, imported = read_signature("postal.send"), inspect_imported_target("postal.send")
    assert isinstance(found, Signature)
    assert isinstance(imported, Signature)
    required = {"shop": True, "item": True, "amount": False, "hours": True, "note": False}
    for signature in (found, imported):
        assert {item.name: item.required for item in signature.parameters} == required
        assert not signature.open
    assert [item.annotation for item in found.parameters] == ["str", "str", "int", "float", "'str | None'"]


def test_a_lazy_package_that_lists_its_names_has_no_others(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(own)
    found = read_signature("shopware.Latte")
    assert isinstance(found, Unknown)
    assert found.better == "shopware.Late"


def test_nothing_is_imported() -> None:
    code = dedent("""
        import sys
        from mlscale.config.signatures.signatures import read_signature
        read_signature("torch.optim.SGD"), read_signature("pytorch_lightning.Trainer")
        read_signature("torchvision.models.resnet18")
        print([name for name in ("torch", "numpy", "pytorch_lightning", "torchvision") if name in sys.modules])
        """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
