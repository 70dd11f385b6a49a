"""Files of weights: each kind gives the same tensors, and a torn or a foreign one is an error in words."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mlscale.errors import MLScaleError
from mlscale.runs.initial_source import compute_weights_digest, find_initial_weights
from mlscale.tasks import MLP, Classification, ResNet
from mlscale.train.initial_weights.start import REPORT, load_initial_weights, write_match_report
from mlscale.train.initial_weights.weight_files import read_weight_file

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "count": torch.tensor(3),
    "none": torch.empty(0, 4),
}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one
    )


def sharded(folder: Path) -> Path:
    save_file({"a": TENSORS["a"]}, folder / "model-1.safetensors", {"license": "mit"})
    save_file({name: TENSORS[name] for name in ("half", "count", "none")}, folder / "model-2.safetensors")
    parts = {"a": "model-1.safetensors"} | dict.fromkeys(("half", "count", "none"), "model-2.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": parts}))
    return index


@pytest.mark.parametrize("wrapped", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("old", [False, True])
def test_plain_files_of_torch(tmp_path: Path, wrapped: str | None, old: bool) -> None:
    path = tmp_path / "model.pth"
    content: Any = {wrapped: TENSORS, "epoch": 3} if wrapped else TENSORS
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    assert same(read_weight_file(path), TENSORS)
    assert find_initial_weights(str(path)).source == "file"


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path, {"license": "apache-2.0"})
    assert same(read_weight_file(path), TENSORS)
    assert find_initial_weights(str(path)).licence == "apache-2.0"


@pytest.mark.parametrize("named", ["", "model.safetensors.index.json"])
def test_a_sharded_model_by_its_folder_or_its_index(tmp_path: Path, named: str) -> None:
    index = sharded(tmp_path)
    initial = find_initial_weights(str(tmp_path / named))
    assert initial.checkpoint == index
    assert initial.licence == "mit"
    assert same(read_weight_file(index), TENSORS)
    save_file({"a": TENSORS["a"] + 1}, tmp_path / "model-1.safetensors")
    assert compute_weights_digest(index) != initial.sha256
    with pytest.raises(MLScaleError, match="not there any more"):
        initial.check_unchanged()


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_a_torn_file_of_torch_says_so(tmp_path: Path, old: bool, part: float) -> None:
    path = tmp_path / "model.pth"
    torch.save({"a": torch.zeros(1000)}, path, _use_new_zipfile_serialization=not old)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(MLScaleError) as caught:
        read_weight_file(find_initial_weights(str(path)).checkpoint)
    assert "cut short" in caught.value.why or "can't be read" in caught.value.what


def test_what_would_run_code_is_refused(tmp_path: Path) -> None:
    for old in (False, True):
        path = tmp_path / f"code-{old}.pt"
        torch.save({"state_dict": {"a": torch.zeros(1)}, "x": Foreign()}, path, _use_new_zipfile_serialization=not old)
        with pytest.raises(MLScaleError) as caught:
            read_weight_file(path)
        assert not Foreign.ran
        assert "more than tensors" in caught.value.what + caught.value.fix


class Foreign:
    """Runs code when it is unpickled."""

    ran = False

    def __reduce__(self) -> Any:
        return (setattr, (Foreign, "ran", True))


def test_a_folder_without_weights_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(MLScaleError, match="holds no weights"):
        find_initial_weights(str(tmp_path))
    for name in ("a", "b"):
        save_file({"x": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(MLScaleError, match="several files") as caught:
        find_initial_weights(str(tmp_path))
    assert caught.value.fix == f"init_from={tmp_path}/a.safetensors"
    with pytest.raises(MLScaleError, match="checkpoint not found"):
        find_initial_weights(str(tmp_path / "c.safetensors"))


def fresh(classes: int = 10) -> Classification:
    torch.manual_seed(1)
    return Classification(classes, model=ResNet(1, classes, (4,), 1))


def test_a_task_starts_from_a_file_and_keeps_its_new_head(tmp_path: Path) -> None:
    torch.manual_seed(0)
    there = ResNet(1, 9, (4,), 1)
    save_file(there.state_dict(), tmp_path / "x.safetensors")
    task, untouched = fresh(), fresh()
    before = torch.get_rng_state()
    found, lines = load_initial_weights(task, find_initial_weights(str(tmp_path / "x.safetensors")), classes=10)
    assert torch.equal(torch.get_rng_state(), before), "a random number was drawn"
    assert (
        lines[1]
        == "head      model.head.weight, model.head.bias: 9 outputs in the source, 10 here, so it is re-initialised"
    )
    has, anew = task.state_dict(), untouched.state_dict()
    assert torch.equal(has["model.head.weight"], anew["model.head.weight"])
    assert torch.equal(has["model.stem.0.weight"], there.state_dict()["stem.0.weight"])
    write_match_report(found, tmp_path)
    assert json.loads((tmp_path / REPORT).read_text())["classes"] == [9, 10]


def test_nearly_all_is_not_called_all(tmp_path: Path) -> None:
    model = Classification(10, model=ResNet(1, 10, (32,), 1))
    given = model.model.state_dict()
    given.pop("stem.1.bias")
    save_file(given, tmp_path / "x.safetensors")
    with pytest.raises(MLScaleError, match="do not fit") as caught:
        load_initial_weights(model, find_initial_weights(str(tmp_path / "x.safetensors")), classes=10)
    assert "which takes the 99% that fit" in caught.value.fix


def test_not_strict_takes_what_fits_if_that_is_most_of_it(tmp_path: Path) -> None:
    given = ResNet(1, 10, (4,), 1).state_dict()
    given.pop("stem.0.weight")
    save_file({**given, "more": torch.zeros(1)}, tmp_path / "x.safetensors")
    initial = find_initial_weights(str(tmp_path / "x.safetensors"))
    with pytest.raises(MLScaleError, match="do not fit") as caught:
        load_initial_weights(fresh(), initial, classes=10)
    assert "init_strict=false, which takes the 91% that fit" in caught.value.fix
    assert caught.value.unbuilt
    _, lines = load_initial_weights(fresh(), initial, classes=10, strict=False)
    assert lines[1:] == [
        "weights   missing: model.stem.0.weight",
        "weights   unexpected: more",
        f"weights   all names: {REPORT}",
    ]
    save_file(MLP(64, 10).state_dict(), tmp_path / "y.safetensors")
    with pytest.raises(MLScaleError, match="only 0% of the model's weights are in the file"):
        load_initial_weights(fresh(), find_initial_weights(str(tmp_path / "y.safetensors")), classes=10, strict=False)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    given = ResNet(1, 10, (4,), 1).state_dict()
    given["stem.0.weight"][0] = float("nan")
    save_file(given, tmp_path / "x.safetensors")
    with pytest.raises(MLScaleError, match="are not finite") as caught:
        load_initial_weights(fresh(), find_initial_weights(str(tmp_path / "x.safetensors")), classes=10)
    assert caught.value.why == "model.stem.0.weight"
