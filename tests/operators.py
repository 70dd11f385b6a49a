"""A fixture for the tests that export to ONNX."""

import functools
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def operators_parsed_once() -> Iterator[None]:
    """Parse onnxscript's 500 operators once, not at each export: it takes a second of CPU, and they do not change."""
    from torch.onnx._internal import _lazy_import

    apis = _lazy_import.onnxscript_apis  # type: ignore[attr-defined]  # no public name
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(apis, "get_torchlib_ops", functools.cache(apis.get_torchlib_ops))
        yield
