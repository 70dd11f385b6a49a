"""The bar of a notebook: what it shows; that a kernel shows it is in tests/e2e/test_notebook.py."""

import sys
import time
from pathlib import Path
from threading import Thread

import pytest

from mlscale.train.callbacks.progress import NotebookBar, NotebookOutput, find_notebook_shell


class Cell(NotebookOutput):
    def __init__(self) -> None:
        self.shown: list[tuple[str, str]] = []

    def update_content(self, html: str, plain: str) -> None:
        self.shown.append((html, plain))


def test_it_shows_how_far_and_what_is_known() -> None:
    cell = Cell()
    bar = NotebookBar(22, "epoch 1/3", cell)
    bar.n = 11
    bar.set_postfix_str("loss <0.5>")
    html, plain = cell.shown[-1]
    assert '<progress value="11" max="22">' in html
    assert "loss &lt;0.5&gt;" in html
    assert plain == "epoch 1/3  11/22, loss <0.5>"


def test_an_epoch_without_an_end_has_no_end() -> None:
    cell = Cell()
    NotebookBar(None, "epoch 1", cell).close()
    assert "<progress></progress> 0/?" in cell.shown[-1][0]


def test_this_is_no_notebook() -> None:
    assert find_notebook_shell() is None


@pytest.mark.parametrize("in_kernel", [True, False])
def test_an_import_of_ipython_that_another_thread_has_begun(
    in_kernel: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = tmp_path / "IPython" / "core"
    core.mkdir(parents=True)
    (core.parent / "__init__.py").write_text("import time\ntime.sleep(0.3)\n")
    (core / "__init__.py").touch()
    (core / "getipython.py").write_text("class Shell:\n    kernel = 1\ndef get_ipython(): return Shell()\n")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("IPython", "ipykernel")]:
        monkeypatch.delitem(sys.modules, name)
    if in_kernel:
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.syspath_prepend(str(tmp_path))

    importing = Thread(target=__import__, args=("IPython",))
    importing.start()
    while "IPython" not in sys.modules:
        time.sleep(0.001)
    try:
        assert (find_notebook_shell() is not None) is in_kernel
    finally:
        importing.join()
        for name in [name for name in sys.modules if name.partition(".")[0] == "IPython"]:
            del sys.modules[name]
