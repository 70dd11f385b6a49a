"""A user's folder with code, options and recipes that the golden messages name."""

from __future__ import annotations

from pathlib import Path

import pytest

OWN = {
    "shop.py": "class Net:\n    def __init__(self, hidden: int, depth: int = 2) -> None: ...\n",
    "conf/model/typo.yaml": "_target_: shop.Net\nhiden: 64\n",
    "conf/model/lacks.yaml": "_target_: shop.Net\n",
    "conf/model/nowhere.yaml": "_target_: shpo.Net\nhidden: 64\n",
    "conf/model/untargeted.yaml": "hidden: 64\n",
    "conf/optimizer/nested.yaml": "_target_: torch.optim.AdamW\n_partial_: true\n",
    "conf/recipe/bare.yaml": "# @package _global_\nmodel: resnet\n",
    "conf/recipe/foreign.yaml": "# @package _global_\ngpus: 8\ntrainer:\n  precision: bf16-mixed\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("user")
    for name, text in OWN.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root
