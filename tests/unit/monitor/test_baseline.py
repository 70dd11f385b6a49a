"""The reference profile of a servable, and what is refused. The servable is the stored one of the contract."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from mlscale.atomic_files import compute_sha256
from mlscale.errors import MLScaleError
from mlscale.export.reference_profile import ARRAYS, ReferenceProfile
from mlscale.monitor.baseline import Baseline, read_baseline

STORED = Path(__file__).parents[2] / "contract" / "examples" / "servable-1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STORED, tmp_path / "servable"))


def baseline(folder: Path) -> Baseline:
    return read_baseline(folder, model="m", version="m:v1")


def test_the_stored_servable_still_has_one(folder: Path) -> None:
    found, arrays = baseline(folder), ReferenceProfile.load_profile(folder / "reference").arrays
    assert found.input_mean.shape == arrays["sample_mean"].T.shape
    assert (np.diff(found.input_mean) >= 0).all()
    assert sorted(arrays["sample_std"][:, 0].tolist()) == found.input_std[0].tolist()
    assert found.confidence.tolist() == sorted(arrays["sample_confidence"].tolist())
    assert len(found.labels) == len(found.class_counts)
    assert 0 <= found.accuracy <= 1
    assert (found.model, found.version) == ("m", "m:v1")


def test_an_altered_profile_is_refused(folder: Path) -> None:
    path = folder / "reference" / ARRAYS
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(MLScaleError, match="corrupt or altered"):
        baseline(folder)


def test_a_profile_from_elsewhere_is_refused(folder: Path, tmp_path: Path) -> None:
    path = folder / "reference" / ARRAYS
    path.rename(tmp_path / "elsewhere.npz")
    path.symlink_to(tmp_path / "elsewhere.npz")
    with pytest.raises(MLScaleError, match="corrupt or altered"):
        baseline(folder)


def test_an_absent_profile_is_told(folder: Path) -> None:
    shutil.rmtree(folder / "reference")
    with pytest.raises(MLScaleError, match="corrupt or altered"):
        baseline(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"class_counts": np.array([1, 2])},
        {"class_counts": None},
        {"sample_mean": np.zeros((3, 1, 2))},
        {"sample_mean": np.array([["a"]])},
        {"sample_confidence": np.zeros(0)},
        {"sample_std": np.zeros((1, 1))},
    ],
)
def test_a_profile_of_another_model_is_refused(folder: Path, change: dict[str, NDArray[Any] | None]) -> None:
    profile = ReferenceProfile.load_profile(folder / "reference")
    arrays = {name: array for name, array in {**profile.arrays, **change}.items() if array is not None}
    ReferenceProfile(profile.about, arrays).save_profile(folder / "reference")
    document = yaml.safe_load((folder / "servable.yaml").read_text())
    for name in document["files"]:
        document["files"][name] = {"sha256": compute_sha256(folder / name), "bytes": (folder / name).stat().st_size}
    (folder / "servable.yaml").write_text(json.dumps(document))
    with pytest.raises(MLScaleError, match="not one of this model"):
        baseline(folder)


def test_a_folder_without_a_servable_is_told(tmp_path: Path) -> None:
    with pytest.raises(MLScaleError, match="no servable"):
        baseline(tmp_path)
