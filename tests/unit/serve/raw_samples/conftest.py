"""A servable of every task type, loaded as a server loads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlscale.serve.served_model import ServedModel, load_model
from tests.made_servables import make_servables


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_servables(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="session")
def models(folders: dict[str, Path]) -> dict[str, ServedModel]:
    return {
        name: load_model(folder, name=name, version=f"{name}:v1", threads=1, max_batch=4)
        for name, folder in folders.items()
    }
