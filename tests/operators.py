"""A fixture for the tests that export to ONNX."""

import functools
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def operators_parsed_once() -> Iterator[None]:
    """Parse onnxscript's 500 operators once, not at each export: it takes a second of CPU, and they do not change."""
    from torch.onnx._internal._lazy_import import onnxscript_apis

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(onnxscript_apis, "get_torchlib_ops", functools.cache(onnxscript_apis.get_torchlib_ops))
        yield
