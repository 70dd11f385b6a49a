"""The servable folder: read without torch, verified, and never believed beyond what it is."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from mlscale.atomic_files import iterate_regular_files
from mlscale.data import Digits
from mlscale.errors import Exit, MLScaleError
from mlscale.export.engines.onnx_engine import OnnxEngine
from mlscale.export.measure_export import ExportMeasurement
from mlscale.export.required_extras import require_extra
from mlscale.export.servable import DOCUMENT, MODEL, Servable, load
from mlscale.export.validation_samples import iterate_validation_batches
from mlscale.export.write_servable import write_servable
from mlscale.task_types.softmax import compute_softmax
from tests.unit.export.conftest import save

FILES = ["model.onnx", "parity.json", "reference/profile.json", "reference/profile.npz"]
Change = Callable[[dict[str, Any]], Any]


def rewrite(folder: Path, change: Change) -> None:
    """Change servable.yaml, as somebody with an editor would."""
    document = yaml.safe_load((folder / DOCUMENT).read_text())
    change(document)
    (folder / DOCUMENT).write_text(yaml.safe_dump(document))


def test_it_predicts_what_the_trained_model_does(
    servable: Servable, digits: Digits, measured: ExportMeasurement
) -> None:
    right = 0
    for samples in iterate_validation_batches(digits):
        printed = servable.predict(samples.raw)
        assert printed.labels == [str(number) for number in printed.classes.tolist()]
        np.testing.assert_allclose(printed.probabilities.sum(1), 1, rtol=1e-6)
        right += int((printed.classes == samples.y).sum())
    assert right / 360 == measured.parity.torch_metric


def test_it_is_read_and_asked_without_torch(servable: Servable, tmp_path: Path) -> None:
    code = (
        "import sys, numpy; from mlscale.export.servable import load\n"
        f"servable = load({str(servable.folder)!r})\n"
        "said = servable.predict(numpy.zeros((2, 1, 8, 8), numpy.uint8)); servable.read_reference()\n"
        "heavy = ('torch', 'pytorch_lightning', 'omegaconf', 'hydra', 'onnx', 'sklearn')\n"
        "print(len(said.labels), [name for name in heavy if name in sys.modules])"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**environment, "HOME": str(home)}
    )
    assert list(home.rglob("*")) == []  # nothing is noted down for the maker of the runtime
    assert run.stdout.split("\n")[0] == "2 []", run.stderr


def test_every_file_is_named_and_the_same_model_gives_the_same_folder(
    servable: Servable, measured: ExportMeasurement, tmp_path: Path
) -> None:
    contents = {
        path.relative_to(servable.folder).as_posix(): path.read_bytes()
        for path in iterate_regular_files(servable.folder)
    }
    warmup = [name for name in sorted(contents) if name.startswith("warmup/")]
    assert "warmup/warmup.json" in warmup
    assert sorted(contents) == [*FILES, DOCUMENT, *warmup]
    assert {name: hashlib.sha256(contents[name]).hexdigest() for name in [*FILES, *warmup]} == {
        name: entry["sha256"] for name, entry in servable.document["files"].items()
    }
    again = save(measured, tmp_path / "again").folder
    assert {path.relative_to(again).as_posix(): path.read_bytes() for path in iterate_regular_files(again)} == contents
    assert all(path.stat().st_mode & 0o077 == 0 for path in (servable.folder, *servable.folder.rglob("*")))


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32, np.float64, np.uint16])
def test_pixels_of_any_type_that_holds_them_are_taken(servable: Servable, kind: type[np.generic]) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
    assert servable.predict(raw.astype(kind)).probabilities.tolist() == servable.predict(raw).probabilities.tolist()
    flipped = raw[..., ::-1]  # not contiguous
    assert servable.predict(flipped).classes.tolist() == servable.predict(flipped.copy()).classes.tolist()


@pytest.mark.parametrize(
    ("raw", "fix"),
    [
        (np.zeros((1, 8, 8), np.uint8), "raw[None]"),
        (np.zeros((2, 8, 8, 1), np.uint8), "transpose(0, 3, 1, 2)"),
        (np.zeros((2, 3, 8, 8), np.uint8), "raw.reshape(-1, 1, 8, 8)"),
        (np.zeros((1, 63), np.uint8), "send 64 values a sample, in the shape (1, 8, 8)"),
        (np.full((2, 1, 8, 8), 0.5), "0 to 255"),
        (np.full((2, 1, 8, 8), 256), "0 to 255"),
        (np.full((2, 1, 8, 8), -1), "0 to 255"),
        (np.full((2, 1, 8, 8), np.nan), "0 to 255"),
        (np.full((2, 1, 8, 8), "1"), ""),
    ],
)
def test_what_it_cannot_take_is_reported(servable: Servable, raw: np.ndarray[Any, Any], fix: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        servable.predict(raw)
    assert fix in caught.value.fix
    assert caught.value.where == "input"


def test_none_are_none(servable: Servable) -> None:
    printed = servable.predict(np.zeros((0, 1, 8, 8), np.uint8))
    assert (printed.labels, printed.probabilities.shape, printed.classes.shape) == ([], (0, 10), (0,))


def test_large_logits_are_no_trouble() -> None:
    given = np.array([[1e4, 1e4 - 1, -1e4]], np.float32)
    np.testing.assert_allclose(compute_softmax(given), [[0.7310586, 0.2689414, 0]], rtol=1e-5)


@pytest.mark.parametrize(
    "place", ["name: digits", "labels", "val/accuracy", "sha256", "# SHA-256 of the lines above: "]
)
def test_a_document_that_was_altered_is_refused(servable: Servable, place: str) -> None:
    path = servable.folder / DOCUMENT
    content = path.read_text()
    at = content.index(place) + len(place) - 1 + (place[0] == "#")  # of the last line the digest itself
    path.write_text(content[:at] + chr(ord(content[at]) ^ 1) + content[at + 1 :])
    with pytest.raises(MLScaleError, match="can't read servable") as caught:
        load(servable.folder)
    assert caught.value.why == "its SHA-256 is another: it is not what was exported"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["altered", "torn", "gone"])
def test_a_file_that_is_not_what_was_exported_is_refused(servable: Servable, name: str, damage: str) -> None:
    path = servable.folder / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        altered = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes(content[:-1] if damage == "torn" else altered)
    with pytest.raises(MLScaleError, match="the servable is corrupt or altered") as caught:
        load(servable.folder)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda d: d.pop("inputs"), "servable.yaml is corrupt"),
        (lambda d: d["inputs"].append(dict(d["inputs"][0], shape=[-1, 1])), "the ONNX model can't be used"),
        (lambda d: d["inputs"][0].update(shape=[]), "servable.yaml is corrupt"),
        (lambda d: d.update(task_type="no such"), "unknown task type 'no such'"),
        (lambda d: d["encoder"]["settings"].update(max_pixels=1), "the encoder is not the one that was written"),
        (lambda d: d["encoder"].update(kind="other"), "the encoder"),
        (lambda d: d.update(labels=["one"]), "servable.yaml is corrupt"),
        (lambda d: d.update(files=[]), "servable.yaml is corrupt"),
        (lambda d: d["files"].pop(MODEL), "servable.yaml is corrupt"),
        (lambda d: d["inputs"][0].update(dtype="float16"), "servable.yaml is corrupt"),
        (lambda d: d["inputs"][0].update(dtype="float32"), "the ONNX model can't be used"),
        (lambda d: d["inputs"][0].update(shape=[-1, 1, 8, 9]), "the ONNX model can't be used"),
        (lambda d: d["inputs"][0].update(name="pixels"), "the ONNX model can't be used"),
        (lambda d: d.update(format="mlscale/servable/3"), "later mlscale"),
        (lambda d: d.update(format="mlscale/run/1"), "not a document of the format mlscale/servable"),
    ],
)
def test_a_document_that_is_wrong_is_refused(servable: Servable, change: Change, what: str) -> None:
    rewrite(servable.folder, change)
    with pytest.raises(MLScaleError, match=what):
        load(servable.folder)


BOMB = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"b{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    "content",
    [
        b"- 1\n",
        b"a: [",
        b"\xff\xfe\xfa",
        b"!!python/object/apply:os.getcwd []",
        b"[" * 100_000,
        f"{BOMB}format: *a11\n".encode(),
    ],
    ids=["list", "torn", "bytes", "code", "deep", "bomb"],
)
def test_what_is_no_document_is_refused(servable: Servable, content: bytes) -> None:
    (servable.folder / DOCUMENT).write_bytes(content)
    with pytest.raises(MLScaleError, match=r"can't read servable\.yaml"):
        load(servable.folder)


def test_a_folder_without_a_document_is_none(tmp_path: Path) -> None:
    with pytest.raises(MLScaleError, match="not a servable") as caught:
        load(tmp_path)
    assert caught.value.fix.startswith("mlscale export")


@pytest.mark.parametrize("way", ["absolute", "parent", "link"])
def test_it_reads_nothing_outside_of_its_folder(servable: Servable, tmp_path: Path, way: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    name = {"absolute": str(secret), "parent": "../secret", "link": "link"}[way]
    (servable.folder / "link").symlink_to(secret)
    entry = {"sha256": hashlib.sha256(b"secret").hexdigest(), "bytes": 6}
    rewrite(servable.folder, lambda document: document["files"].update({name: entry}))
    with pytest.raises(MLScaleError, match="files of its own folder only"):
        load(servable.folder)


def test_a_model_that_keeps_its_weights_in_another_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a file would be opened by a path out of the model, and has no digest."""
    (tmp_path / "weights").write_bytes(np.ones((2, 2), np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2, 2], np.ones(4, np.float32).tolist())
    given, gives = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("input", "logits"))
    node = helper.make_node("MatMul", ["input", "w"], ["logits"])
    graph = helper.make_graph([node], "g", [given], [gives], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    assert OnnxEngine(model.SerializeToString()).run(np.ones((1, 2), np.float32)).tolist() == [[2, 2]]
    outside = model.graph.initializer[0]
    outside.ClearField("float_data")
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.append(onnx.StringStringEntryProto(key="location", value="weights"))
    with pytest.raises(MLScaleError, match="the ONNX model can't be used"):
        OnnxEngine(model.SerializeToString())


def test_a_place_that_is_taken_is_left_alone(servable: Servable, measured: ExportMeasurement, tmp_path: Path) -> None:
    before = (servable.folder / DOCUMENT).stat().st_ino
    with pytest.raises(MLScaleError, match="there is something at servable already") as caught:
        save(measured, servable.folder)
    assert caught.value.fix == "to=<a new folder>"
    assert (servable.folder / DOCUMENT).stat().st_ino == before
    save(measured, servable.folder, replace=True)
    assert (servable.folder / DOCUMENT).stat().st_ino != before
    (tmp_path / "mine").mkdir()
    with pytest.raises(MLScaleError, match="something at mine"):
        save(measured, tmp_path / "mine", replace=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "servable"]


def test_what_cannot_be_read_back_is_never_there(
    servable: Servable, measured: ExportMeasurement, tmp_path: Path
) -> None:
    for folder, replace in ((tmp_path / "new", False), (servable.folder, True)):
        with pytest.raises(MLScaleError, match="the ONNX model can't be used"):
            write_servable(
                folder,
                model=b"no model",
                parity={},
                reference=servable.read_reference(),
                document={name: value for name, value in servable.document.items() if name not in ("format", "files")},
                replace=replace,
            )
    assert [path.name for path in tmp_path.iterdir()] == ["servable"]
    load(servable.folder)


def test_a_package_that_is_missing_is_reported_with_its_extra() -> None:
    require_extra("export", "onnx", "numpy")
    with pytest.raises(MLScaleError, match="no_such_runtime is not installed") as caught:
        require_extra("serve", "numpy", "no_such_runtime")
    assert caught.value.fix == "pip install 'mlscale[serve]'"
    assert caught.value.exit is Exit.ENVIRONMENT
