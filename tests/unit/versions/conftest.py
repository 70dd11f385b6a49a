"""A registry to publish to, and files to publish."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mlscale.versions import LocalRegistry, Version

Publish = Callable[..., Version]


@pytest.fixture
def registry(tmp_path: Path) -> LocalRegistry:
    """An empty registry."""
    return LocalRegistry(tmp_path / "registry")


@pytest.fixture
def publish(registry: LocalRegistry, tmp_path: Path) -> Publish:
    """Publish a file of that content as a version of `resnet`."""

    def one(content: str, name: str = "resnet", **known: object) -> Version:
        source = tmp_path / "source"
        source.write_text(content)
        return registry.publish(name, {"model.ckpt": source}, kind="checkpoint", **known).version  # type: ignore[arg-type]

    return one
