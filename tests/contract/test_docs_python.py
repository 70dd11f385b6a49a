"""The Python of the pages runs: each block, in the order of its page, in a folder that has what the page speaks of."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import nn

import mlscale
from mlscale.atomic_files import write_json
from mlscale.cli import main
from mlscale.events.store import EventStore
from mlscale.export.onnx_export import export_onnx
from mlscale.export.servable import load
from scripts.docs_commands import ROOT
from tests.event_writing import add_answers
from tests.made_servables import encode_penguins, make_servables
from tests.serving import pixels, serving
from tests.unit.data.conftest import write_shards
from tests.unit.export.conftest import build_module

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "recipes/cards").glob("*.md"))]
# Blocks that are files are run with the commands of their page; these are run elsewhere, or need what is not here.
ELSEWHERE = {
    ("evaluate.md", "def predict_step(self"): "the head of a method",
    ("serve.md", "given = httpclient"): "tests/e2e/test_triton_client.py",
    ("tasks.md", "class Kappa"): "tests/contract/test_tasks_doc.py",
    ("tensorflow-serving.md", "urlopen"): "needs TensorFlow Serving",
    ("triton.md", "InferenceServerClient"): "tests/e2e/test_triton_client.py",
}
_BLOCK = re.compile(r"(?P<file><!-- file: \S+ -->\n)?^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def list_blocks(page: Path) -> list[str]:
    """The Python of a page that is neither a file nor tested elsewhere."""
    found = [match["code"] for match in _BLOCK.finditer(page.read_text(encoding="utf-8")) if not match["file"]]
    marks = [mark for name, mark in ELSEWHERE if name == page.name]
    return [code for code in found if not any(mark in code for mark in marks)]


WITH_PYTHON = [page for page in PAGES if list_blocks(page)]


def test_what_is_tested_elsewhere_is_still_on_its_page() -> None:
    assert len(WITH_PYTHON) > 10
    texts = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
    assert [mark for name, mark in ELSEWHERE if mark not in texts[name]] == []
    for page in PAGES:
        for match in _BLOCK.finditer(texts[page.name]):
            compile(match["code"], page.name, "exec")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, two versions, servables, shards and photos."""
    folder = tmp_path_factory.mktemp("python")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("MLSCALE_CACHE", str(folder / "cache"))
        mlscale.run("train", ["+recipe=resnet", "model=mlp", "trainer.max_epochs=1", "data.batch_size=100"])
        assert main(["export", "last", "to=models/digits", "samples=64"]) == 0
        for ref, alias in (("models/digits", "alias=champion"), ("last", "alias=challenger")):
            assert main(["versions", "add", ref, "name=resnet", alias]) == 0
    made = make_servables(folder / "made")
    for name in ("penguins", "mass", "photos", "masks"):
        shutil.copytree(made[name], folder / "models" / name)
    write_json(folder / "runs/encoder.json", encode_penguins().to_document())
    for name in ("photo.jpg", "cat.jpg"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / name)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page: Path, world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(world, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLSCALE_CACHE", str(world / "cache"))
    names: dict[str, Any] = PREPARE[page.name](folder) if page.name in PREPARE else {}
    instead = names.pop("instead", {})
    code = [adapt(block, instead) for block in list_blocks(page)]
    if page.name == "serve.md":
        with serving(folder, folder / "models/masks") as server:
            run_blocks([block.replace("http://127.0.0.1:8000", server.url) for block in code], names, page)
        with Image.open("mask.png") as mask:
            assert mask.size == (8, 8)
    else:
        run_blocks(code, names, page)


def run_blocks(blocks: list[str], names: dict[str, Any], page: Path) -> None:
    """Run the blocks one after the other: later ones may speak of what earlier ones have made."""
    for block in blocks:
        exec(compile(block, page.name, "exec"), names)


def adapt(block: str, instead: dict[str, str]) -> str:
    """Put what this folder has in place of what a reader has: a run, a few shards, one epoch."""
    for typed, here in instead.items():
        block = block.replace(typed, here)
    return block


def prepare_loader(folder: Path) -> dict[str, Any]:
    """Shards, and the model of a loop."""
    write_shards(folder / "shards/train", 12)
    write_shards(folder / "shards/val", 6)
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    small = {
        "shards/{000..099}.tar": "shards/train", "image_size=224, batch_size=256": "image_size=8, batch_size=4",
        "90)": "1)",
    }  # fmt: skip
    return {"model": model, "criterion": nn.CrossEntropyLoss(), "device": "cpu", "instead": small}


def prepare_events(folder: Path) -> dict[str, Any]:
    """Events of two requests, with their inputs and a label."""
    store = EventStore("events")
    writer = store.open_writer("resnet", sample_share=1.0)
    add_answers(writer, load(folder / "models/digits"), ["a-1", "a-2"], list(pixels(2)), version="resnet:v7")
    writer.close()
    return {}


def prepare_export(folder: Path) -> dict[str, Any]:
    """A model and its export, and pixels."""
    model = build_module(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), (1, 8, 8))
    samples = np.zeros((2, 1, 8, 8), np.float32)
    return {"pixels": pixels(2), "model": model, "onnx_bytes": export_onnx(model), "samples": samples}


def prepare_card(folder: Path) -> dict[str, Any]:
    """A language model."""
    result = mlscale.run("train", ["+recipe=gpt", "debug=fast"])
    return {"instead": {"runs/…/": f"{result.artifacts['run']}/", ", 300)": ", 3)"}}


PREPARE: dict[str, Callable[[Path], dict[str, Any]]] = {
    "loader.md": prepare_loader,
    "events.md": prepare_events,
    "export.md": prepare_export,
    "gpt.md": prepare_card,
    "data.md": lambda folder: {"instead": {"runs/…/": "runs/"}},
    "python.md": lambda folder: {"frame": __import__("pyarrow").table({
        "island": ["Dream"], "bill_length_mm": [39.5], "body_mass_g": [3700.0], "sex": ["male"]})},
    "targets.md": lambda folder: {"__name__": "my_targets"},
    "trackers.md": lambda folder: {"pixels": np.zeros((4, 4), np.uint8), "rows": [("a", 0.1)]},
}  # fmt: skip
