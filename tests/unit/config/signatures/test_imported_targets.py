"""What source can't tell of a target is asked of the imported one before anything is refused."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mlscale
from mlscale.assembly.build import build
from mlscale.config.signatures import source_names as source
from mlscale.config.signatures.signatures import read_signature
from mlscale.errors import MLScaleError

LAZY_MODULE = """
import importlib, sys
from types import ModuleType
from typing import TYPE_CHECKING

class _LazyModule(ModuleType):
    def __getattr__(self, name):
        for module in ("nets", "nets.deep"):
            found = vars(importlib.import_module(f"{self.__name__}.{module}"))
            if name in found:
                return found[name]
        raise AttributeError(name)

if TYPE_CHECKING:
    from .missing_here import *
else:
    _self = _LazyModule(__name__)
    _self.__dict__.update({key: value for key, value in globals().items() if key.startswith("__")})
    sys.modules[__name__] = _self
"""

GETATTR = """
import importlib
__all__ = ["nets"]
def _get(name):
    for module in ("nets", "nets.deep"):
        found = vars(importlib.import_module(f"{__name__}.{module}"))
        if name in found:
            return found[name]
    raise AttributeError(name)
__getattr__, __dir__ = _get, lambda: __all__
"""

NETS = """
class Net:
    def __init__(self, width: int, **kwargs):
        self.width, self.rest = width, kwargs
"""

CODE = '''
import dataclasses
import functools
from dataclasses import dataclass, field


def config(cls):
    """Returns another class, with fields of its own."""
    made = dataclass(cls)

    @dataclass
    class Made(made):
        extra: int = 3

        def twice(self):
            return self

    return Made


@config
class Wrapped:
    width: int


def replaced(name):
    def inner(cls):
        cls = dataclasses.make_dataclass(cls.__name__, [("width", int), ("extra", int, 3)])
        return cls
    return inner


@replaced("net")
class Replaced:
    def __init__(self):
        raise AssertionError


def registered(cls):
    def start(self, width, extra=3):
        self.width, self.extra = width, extra
    cls.__init__ = start
    return cls


@registered
class Registered:
    pass


class Swallows(type):
    def __call__(cls, width, **kwargs):
        made = super().__call__()
        made.width, made.extra = width, kwargs.get("extra", 3)
        return made


class ByMetaclass(metaclass=Swallows):
    def __init__(self):
        pass


class Fields:
    def __init_subclass__(cls):
        dataclass(cls)


class Derived(Fields):
    width: int
    extra: int = 3


def known(cls):
    CLASSES.append(cls)
    return cls


CLASSES: list = []


@known
class Plain:
    def __init__(self, width, extra=3):
        self.width, self.extra = width, extra


def strict(cls):
    """As huggingface_hub's: the fields are set, and all other keywords go to `__post_init__`."""
    first = cls.__init__

    @functools.wraps(first)
    def start(self, **kwargs):
        known = {key: kwargs.pop(key) for key in list(kwargs) if key in ("width", "extra")}
        vars(self).update({"width": 1, "extra": 3} | known)
        self.__post_init__(**kwargs)

    cls.__init__ = start
    return cls


@strict
@dataclass
class AnyKeyword:
    width: int = 1
    extra: int = 3

    def __post_init__(self, **kwargs):
        vars(self).update(kwargs)


@strict
@dataclass
class FieldsAlone:
    width: int = 1
    extra: int = 3

    def __post_init__(self):
        pass


class Anything:
    """`**kwargs` that go nowhere."""

    def __init__(self, width: int = 7, **kwargs):
        assert not kwargs, kwargs
        self.width, self.extra = width, 3


class LyingAnnotations:
    def __init__(self, width: int = None, extra: str = 3, pair: int = (1, 2)):
        self.width, self.extra = width, extra


class Strict:
    def __init__(self, width: str):
        self.width, self.extra = width, 3
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Third-party packages on the path, forgotten afterwards."""
    for name, text in (("lazy_by_module", LAZY_MODULE), ("lazy_by_getattr", GETATTR)):
        (tmp_path / name / "nets").mkdir(parents=True)
        (tmp_path / name / "__init__.py").write_text(text)
        (tmp_path / name / "nets/__init__.py").write_text(NETS)
        (tmp_path / name / "nets/deep.py").write_text(NETS.replace("Net", "Deep"))
    (tmp_path / "decorated.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    source.find_module.cache_clear()
    read_signature.cache_clear()
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("lazy_by_module", "lazy_by_getattr", "decorated", "broken"):
            del sys.modules[name]


def built(*overrides: str) -> Any:
    """The model of a config that was checked."""
    return build(mlscale.compose(list(overrides)).model, "model")


def refusal(*overrides: str) -> str:
    with pytest.raises(MLScaleError) as caught:
        mlscale.compose(list(overrides))
    return str(caught.value)


@pytest.mark.parametrize("package", ["lazy_by_module", "lazy_by_getattr"])
@pytest.mark.parametrize("name", ["Net", "Deep"])
def test_lazy_packages(own: Path, package: str, name: str) -> None:
    model = built("model=none", f"model._target_={package}.{name}", "model.width=5", "model.dropout=0.1")
    assert (type(model).__name__, model.width, model.rest) == (name, 5, {"dropout": 0.1})
    # The shipped default's keys are nothing to a class that would take any.
    assert built(f"model._target_={package}.{name}", "model.width=5").rest == {}
    assert "'model.width' is missing" in refusal("model=none", f"model._target_={package}.{name}")
    typo = refusal("model=none", f"model._target_={package}.{name}t")
    assert f"does not exist: {package}.{name}t" in typo
    assert "'model.width'" not in typo


@pytest.mark.parametrize("name", ["Wrapped", "Replaced", "Registered", "ByMetaclass", "Derived", "Plain"])
def test_decorated_classes(own: Path, name: str) -> None:
    model = built("model=none", f"model._target_=decorated.{name}", "model.width=5", "model.extra=4")
    assert (model.width, model.extra) == (5, 4)
    assert "'model.width' is missing" in refusal("model=none", f"model._target_=decorated.{name}")
    if name != "ByMetaclass":  # it takes anything
        typo = refusal("model=none", f"model._target_=decorated.{name}", "model.width=5", "model.exta=4")
        assert "unknown key 'model.exta'" in typo
        assert "fix:   model.extra=4" in typo


@pytest.mark.parametrize("option", ["resnet", "mlp", "timm", "resnet18"])
def test_keywords_that_anything_may_follow_get_no_shipped_defaults(own: Path, option: str) -> None:
    assert built(f"model={option}", "model._target_=decorated.Anything").width == 7


@pytest.mark.parametrize("name", ["googlenet", "resnet50", "efficientnet_b0"])
def test_builders_of_the_options_own_package_keep_its_keys(own: Path, name: str) -> None:
    """torchvision's hand `num_classes` on by their keywords."""
    model = mlscale.compose(["model=resnet18", f"model._target_=torchvision.models.{name}"]).model
    assert {"num_classes", "weights"} <= set(model)


def test_what_was_typed_is_given_to_keywords(own: Path) -> None:
    with pytest.raises(MLScaleError, match="'depth': 3"):
        built("model=resnet", "model._target_=decorated.Anything", "model.depth=3")


def test_a_subclass_of_a_task_gets_what_its_base_takes(own: Path) -> None:
    (own / "decorated.py").write_text(
        "from mlscale.tasks import Classification\n"
        "class Focal(Classification):\n"
        "    def __init__(self, gamma: float = 2.0, **kwargs):\n        super().__init__(**kwargs)\n"
    )
    cfg = mlscale.compose(["task._target_=decorated.Focal"])
    assert {"num_classes", "label_smoothing"} <= set(cfg.task)


def test_a_default_counts_more_than_its_annotation(own: Path) -> None:
    node = ("model=none", "model._target_=decorated.LyingAnnotations")
    for given in ("model.width=null", "model.extra=4", "model.pair=[3,4]"):
        built(*node, given)
    assert "'model.width' must be int or null" in refusal(*node, "model.width=wide")


def test_a_module_that_does_not_import_is_judged_by_its_source(own: Path) -> None:
    (own / "broken.py").write_text("import no_such_package\nclass Net:\n    def __init__(self, width): ...\n")
    assert "does not exist: broken.Nett" in refusal("model=none", "model._target_=broken.Nett")
    assert "unknown key 'model.widht'" in refusal("model=none", "model._target_=broken.Net", "model.widht=1")


def test_a_class_that_a_session_added_is_found(own: Path) -> None:
    """The source was read before; what is imported has it by now."""
    assert "does not exist: decorated.Late" in refusal("model=none", "model._target_=decorated.Late")
    module = importlib.import_module("decorated")
    vars(module)["Late"] = module.Plain
    assert built("model=none", "model._target_=decorated.Late", "model.width=5").width == 5


def test_a_node_without_a_check(own: Path) -> None:
    node = ("model=none", "model._target_=decorated.Strict", "model.width=5")
    assert "'model.width' must be str" in refusal(*node)
    assert built(*node, "model._check_=false").width == 5
    assert "unknown key 'optimizer.typo'" in refusal(*node, "model._check_=false", "optimizer.typo=1")
    assert "'model._check_' must be bool" in refusal(*node, "model._check_=maybe")


def test_the_key_is_taken_in_every_node(own: Path) -> None:
    """In entries of a group, in nodes inside a node and in lists; and never reaches a constructor."""
    nested = "model.extra=[{_target_:decorated.Strict,width:5,_check_:false}]"
    model = built("model=none", "model._target_=decorated.Plain", "model.width=1", nested)
    assert model.extra[0].width == 5
    unchecked = "{_target_:pytorch_lightning.callbacks.Timer,duration:{hours:1},interval:7,_check_:false}"
    cfg = mlscale.compose([f"+callbacks.mine={unchecked}", "trainer._check_=false", "optimizer._check_=true"])
    assert cfg.callbacks.mine._check_ is False
    assert build(cfg.optimizer, "optimizer", params=[]) is not None


def test_the_key_reaches_no_constructor_through_an_interpolation(own: Path) -> None:
    model = built(
        "model=none", "model._target_=decorated.Plain", "model.width=${extra_node}", "model._check_=false",
        "+data.extra_node={_target_:decorated.Strict,width:5,_check_:false}", "data._check_=false",
        "model.extra=${data.extra_node}", "model.width=1",
    )  # fmt: skip
    assert model.extra.width == 5


def test_a_config_whose_post_init_takes_any_keyword_takes_any_key(own: Path) -> None:
    assert built("model=none", "model._target_=decorated.AnyKeyword", "model.num_labels=4").num_labels == 4
    assert "unknown key 'model.depth'" in refusal("model=none", "model._target_=decorated.FieldsAlone", "model.depth=4")
