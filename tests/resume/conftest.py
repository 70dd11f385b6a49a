"""What killed and stopped runs are compared with."""

from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.resume_layouts import list_typed_words
from tests.conftest import made_once, runs_in
from tests.resume.commands import WORDS, ended


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, bundled: Path) -> Callable[[str], Path]:
    """A run of `WORDS` that was left alone, by its layout in `scripts/resume_layouts.py`."""

    def run(layout: str) -> Path:
        def make(folder: Path) -> None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("MLSCALE_CACHE", str(bundled))
                patch.setenv("OMP_NUM_THREADS", "1")
                code, printed = ended(folder, *WORDS, *list_typed_words(layout))
            assert code == 0, printed

        (made,) = runs_in(made_once(tmp_path_factory, f"undisturbed-{layout}", make))
        return made

    return run
