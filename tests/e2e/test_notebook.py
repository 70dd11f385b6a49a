"""docs/notebook.ipynb runs in a real kernel and shows what it says; an interrupt leaves the kernel alive."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs/notebook.ipynb"
INTERRUPTED = """
import os, signal, mlscale
from pytorch_lightning import Callback

class Interrupts(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if trainer.global_step == 3:
            os.kill(os.getpid(), signal.SIGINT)

words = ["+recipe=resnet", "model=mlp", "trainer.max_epochs=1", "+callbacks.stops._target_=__main__.Interrupts"]
mlscale.run("train", words)
"""


@pytest.fixture
def kernel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels start in an empty folder, in an empty home."""
    (folder / "home").mkdir()
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))


def executed(notebook: Any, folder: Path) -> list[Any]:
    """The outputs of each code cell."""
    client: Any = nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", allow_errors=True)
    client.execute(cwd=str(folder))
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def shipped() -> Any:
    """The notebook of the docs."""
    read: Any = nbformat.read
    return read(NOTEBOOK, as_version=4)


def test_it_is_kept_without_outputs() -> None:
    cells = shipped().cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells if cell.cell_type == "code")


@pytest.mark.slow
def test_the_notebook_of_the_docs(folder: Path, kernel: None) -> None:
    outputs = executed(shipped(), folder)
    assert [out for cell in outputs for out in cell if out.output_type == "error"] == []
    assert "fix:   trainer.devices=2" in outputs[1][0]["text"]
    assert re.search(r"epoch 3/3 .*val/accuracy", "".join(out.get("text", "") for out in outputs[2]))
    (page,) = [out for out in outputs[2] if out.output_type == "execute_result"]
    assert "<svg" in page["data"]["text/html"]
    assert "best val/accuracy" in page["data"]["text/plain"]
    assert outputs[5][-1]["data"]["text/plain"] == "True"


@pytest.mark.slow
def test_an_interrupt_stops_the_run_and_leaves_the_kernel(folder: Path, kernel: None) -> None:
    v4: Any = nbformat.v4
    notebook = v4.new_notebook()
    going_on = 'result = mlscale.run("train", ["resume=last"])\nresult.sentence'
    notebook.cells = [v4.new_code_cell(source) for source in (INTERRUPTED, going_on)]
    first, second = executed(notebook, folder)
    (error,) = [out for out in first if out.output_type == "error"]
    assert error["ename"] == "MLScaleError"
    (shown,) = error["traceback"]
    assert "stopped by SIGINT after optimizer step 3, saved to" in shown
    assert "Traceback" not in shown
    assert "resumed from step 3 bitwise identical" in second[-1]["data"]["text/plain"]
