"""A run to look at."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlscale.runs.folder import RunFolder

CONFIG = "seed: 1\noptimizer:\n  lr: 0.1\ntrainer:\n  devices: 1\n"


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., RunFolder]:
    """Start a run below tmp_path/runs."""

    def create(name: str = "resnet", **kwargs: Any) -> RunFolder:
        arguments: dict[str, Any] = {"command": "train", "config_yaml": CONFIG, "seed": 1, **kwargs}
        return RunFolder.create(tmp_path / "runs", name, **arguments)

    return create
