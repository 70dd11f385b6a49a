"""What Python carries with it: its documentation and its source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlscale.data import PythonDocs, PythonSource
from mlscale.data.builtin import python_docs
from mlscale.errors import Exit, MLScaleError

SHARED = "A long paragraph that another module quotes word by word."


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of two modules, one of which quotes the other; a test, which is left out; and one that is no Python."""
    root = tmp_path / "lib"
    for name, text in {
        "one.py": f'"""{SHARED}\n\n' + "Its own. " * 40 + '"""',
        "pkg/two.py": '"""' + "Another's. " * 40 + f'\n\n{SHARED}"""',
        "test/three.py": '"""' + "A test. " * 40 + '"""',
        "broken.py": "def (",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(python_docs, "_find_library", lambda: root)
    return root


def test_what_was_printed_before_is_left_out(library: Path) -> None:
    documents = {document.name: document.text.decode() for document in python_docs.collect_documents()}
    assert "help/assert" in documents
    assert {name for name in documents if not name.startswith("help/")} == {"one.py", "pkg/two.py"}
    assert SHARED in documents["one.py"]
    assert SHARED not in documents["pkg/two.py"]


def test_it_is_collected_once(library: Path) -> None:
    data = PythonDocs(length=64)
    with pytest.raises(MLScaleError, match="not been collected") as caught:
        data.facts()
    assert caught.value.fix == "mlscale prepare data=python_docs"
    data.prepare_data()
    facts = data.facts()
    assert 0 < facts.val_samples < facts.train_samples / 4
    data.prepare_data()
    assert PythonDocs(length=64).facts() == facts
    (library / "new.py").write_text('"""' + "More. " * 100 + '"""')
    assert PythonDocs().folder != data.folder


def test_files_are_held_out_and_not_pieces() -> None:
    data = PythonSource(["json", "email"], length=256)
    facts = data.facts()
    assert facts.class_names == ("email", "json")
    assert sum(facts.class_counts) == facts.train_samples
    files = [
        {data.get_rows(split).get_key(i).split("@")[0] for i in range(len(data.get_rows(split)))}
        for split in ("train", "val")
    ]
    assert not files[0] & files[1]
    assert {path.split("/")[0] for path in files[1]} == {"json", "email"}
    x, _ = data.get_rows("val").take_samples(np.arange(1))
    assert x.shape == (1, 256)
    assert x.min() >= 0
    assert x.max() <= 256


def test_python_may_be_installed_below_a_folder_called_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "tests" / "lib"
    for name in ("a/one", "a/two", "a/tests/three"):
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / f"{name}.py").write_text("x = 1\n" * 100)
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(library)})
    data = PythonSource(["a"], length=64)
    keys = {
        data.get_rows(split).get_key(i).split("@")[0]
        for split in ("train", "val")
        for i in range(len(data.get_rows(split)))
    }
    assert keys == {"a/one.py", "a/two.py"}


def test_a_package_that_is_not_there() -> None:
    with pytest.raises(MLScaleError, match="no file of the package 'no_such'") as caught:
        PythonSource(["json", "email", "no_such"]).facts()
    assert caught.value.fix == "data.packages=[json,email]"
    assert caught.value.exit == Exit.ENVIRONMENT
