"""Third-party code that the configs of these tests name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlscale.config.signatures import source_names
from mlscale.config.signatures.signatures import read_signature

SHOP = """
from mlscale.tasks import Classification


class Net:
    def __init__(self, hidden: int, depth: int = 2): ...


class Anything:
    def __init__(self, width: int, **kwargs): ...


class Focal(Classification):
    def __init__(self, gamma: float = 2.0, **kwargs): ...


class Data:
    def __init__(self, root: str, workers: int = 1, shuffle: bool = True): ...


class Module:
    def __init__(self, lr: float = 0.1, wd: float = 0.0, optimizer: str = "sgd"): ...


class Twelve:
    def __init__(self, a=1, b=1, c=1, d=1, e=1, f=1, g=1, h=1, i=1, j=1, k=1, l=1): ...


class Thirteen:
    def __init__(self, a=1, b=1, c=1, d=1, e=1, f=1, g=1, h=1, i=1, j=1, k=1, l=1, m=1): ...


class Loss:
    def __init__(self, label_smoothing: float = 0.5, **kwargs): ...


def registered(cls):
    def start(self, width: int, extra=3): ...

    cls.__init__ = start
    return cls


@registered
class Registered:
    pass
"""

LAZY_SHOP = """
class _Net:
    def __init__(self, hidden: int): ...


def __getattr__(name):
    if name == "Net":
        return _Net
    raise AttributeError(name)


def __dir__():
    return ["Net"]
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules `shop` and `lazy_shop` of the user's in the working folder; forgotten afterwards."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "lazy_shop.py").write_text(LAZY_SHOP)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    source_names.find_module.cache_clear()
    read_signature.cache_clear()
    yield
    for name in ("shop", "lazy_shop"):
        sys.modules.pop(name, None)
