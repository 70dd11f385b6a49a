"""What killed and stopped runs are compared with."""

from pathlib import Path

import pytest

from tests.conftest import runs_in
from tests.resume.commands import WORDS, ended


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, bundled: Path) -> dict[int, Path]:
    """A run of `WORDS` that was left alone, by its number of processes."""
    runs = {}
    for devices in (1, 2):
        folder = tmp_path_factory.mktemp(f"undisturbed-{devices}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLSCALE_CACHE", str(bundled))
            patch.setenv("OMP_NUM_THREADS", "1")
            code, said = ended(folder, *WORDS, f"trainer.devices={devices}")
        assert code == 0, said
        (runs[devices],) = runs_in(folder)
    return runs
