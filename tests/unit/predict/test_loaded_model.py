"""Three ways to ask one model, `predict_samples`, `mlscale.load(…).predict` and batch scoring, agree bitwise."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import nn

import mlscale
from mlscale.commands.predict.rank_worker import PartEvents
from mlscale.errors import MLScaleError
from mlscale.events.store import EventStore
from mlscale.export.event_subject import build_event_subject
from mlscale.export.servable import Servable
from mlscale.predict.inputs import open_inputs
from mlscale.predict.loaded_model import LoadedModel
from mlscale.predict.part_files import start_predictions
from mlscale.predict.score_parts import build_column, list_column_types, load_batch, predict_batch, score_parts
from tests.task_servables import EXAMPLES, build_examples, build_torch_model, get_task_servable, operators_parsed_once

__all__ = ["get_task_servable", "operators_parsed_once"]
GetServable = Callable[[str], Servable]
COUNT = 25


def draw_plain_rows(servable: Servable, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Rows as a typed table holds them: with missing values and with categories that training has not."""

    def draw_value(column: Any) -> Any:
        if rng.random() < 0.2:
            return None
        if column.type == "number":
            return float(rng.normal(column.mean, 3 * column.std))
        if column.of_numbers:
            return float(rng.integers(0, 20))
        return str(rng.choice([*filter(None, column.values), "unseen 🦖", "é e\u0301", " "]))

    columns: Any = servable.encoder.columns  # type: ignore[attr-defined]
    return [{column.name: draw_value(column) for column in columns} for _ in range(COUNT)]


def write_inputs(servable: Servable, samples: list[Any], folder: Path) -> dict[str, Any]:
    """Files with the samples; the arguments of `open_inputs`."""
    folder.mkdir()
    kind = servable.encoder.kind
    if kind == "table":
        names = list(samples[0])
        with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows([["" if row[name] is None else row[name] for name in names] for row in samples])
        columns = {name: [row[name] for row in samples] for name in names}
        pq.write_table(pa.table(columns), folder / "rows.parquet", row_group_size=7)
        return {"spec": str(folder / "rows.csv")}
    for number, sample in enumerate(samples):
        content = sample.encode("utf-8", "surrogateescape") if isinstance(sample, str) else sample
        (folder / f"{number:03}.{'png' if kind == 'image' else 'txt'}").write_bytes(content)
    return {"spec": str(folder)}


def score(model: Any, spec: str, to: Path) -> dict[str, list[Any]]:
    """The rows of batch scoring, in two batches read by two threads."""
    inputs = open_inputs(spec, member=None, key=None, columns=(), kind=model.encoder.kind)
    about = {"spec": "", "digest": inputs.digest, "rows": len(inputs)}
    parts = start_predictions(
        to,
        model={"version": "m:v1", "digest": ""},
        inputs=about,
        answers={},
        created="2026-01-01T00:00:00+00:00",
        part_rows=None,
        overwrite=False,
    )
    score_parts(inputs, model, parts, range(len(parts)), batch_size=COUNT, workers=2)
    return ds.dataset(to, format="parquet").to_table().sort_by("row").to_pydict()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "tensors"])
def test_the_three_ways_agree_bitwise_and_torch_within_tolerance(
    name: str, get_task_servable: GetServable, tmp_path: Path
) -> None:
    servable, rng = get_task_servable(name), np.random.default_rng(7)
    is_table = servable.encoder.kind == "table"
    samples = draw_plain_rows(servable, rng) if is_table else build_examples()[name].draw(rng, COUNT)
    expected = servable.predict_samples(samples)
    assert not expected.bad
    predictions = LoadedModel(servable).predict(samples)
    types = list_column_types(servable.task_type, servable.outputs)
    wanted = {column: build_column(expected.columns[column], type_) for column, type_ in types.items()}
    assert {column: build_column(predictions.columns[column], type_) for column, type_ in types.items()} == wanted
    assert list(predictions) == servable.task_type.build_answers(expected.columns, servable.names)
    given = write_inputs(servable, samples, tmp_path / "in")
    found = score(servable, given["spec"], tmp_path / "to")
    assert found["error"] == [None] * COUNT
    assert {column: found[column] for column in types} == {key: array.to_pylist() for key, array in wanted.items()}
    if is_table:
        parquet = score(servable, str(tmp_path / "in" / "rows.parquet"), tmp_path / "typed")
        assert {column: parquet[column] for column in types} == {column: found[column] for column in types}

    trained = score(build_torch_model(build_examples()[name]), given["spec"], tmp_path / "torch")
    for column, type_ in types.items():
        if pa.types.is_floating(type_) or (pa.types.is_list(type_) and pa.types.is_floating(type_.value_type)):
            np.testing.assert_allclose(np.array(trained[column]), np.array(found[column]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["image", "table", "text", "language", "segmentation"])
def test_events_hold_the_columns_of_raw_samples(name: str, get_task_servable: GetServable, tmp_path: Path) -> None:
    servable, rng = get_task_servable(name), np.random.default_rng(2)
    samples = draw_plain_rows(servable, rng) if name == "table" else build_examples()[name].draw(rng, COUNT)
    spec = write_inputs(servable, samples, tmp_path / "in")["spec"]
    inputs = open_inputs(spec, member=None, key=None, columns=(), kind=servable.encoder.kind)
    batch, outputs = predict_batch(servable, load_batch(inputs, range(3, 9), servable))
    assert outputs is not None
    subject = build_event_subject(servable, "m:v1", "predict")
    events = PartEvents(tmp_path / "events", "m", subject, "2026-01-05T10:00:00+00:00", "abc")
    events.record_batch(batch, servable.task_type.build_predictions(outputs, servable.labels), 0.1)
    events.write_part_events(0)
    read = EventStore(tmp_path / "events").read("m")
    assert read.id.tolist() == batch.keys
    assert list(read.inputs) == list(subject.summary.summarize_samples(servable.pack_samples(samples[3:9])))
    assert read.outputs
    assert None not in read.predictions


def test_several_tensors_by_name(get_task_servable: GetServable) -> None:
    model = LoadedModel(get_task_servable("tensors"))
    samples = build_examples()["tensors"].draw(np.random.default_rng(0), 3)
    expected = get_task_servable("tensors").predict_samples(samples).columns["output"]
    predictions = model.predict(samples)
    assert predictions.output.tolist() == np.stack(expected).tolist()  # type: ignore[arg-type]
    assert list(model.predict(samples[0])) == [{"output": pytest.approx(predictions.output[0].tolist())}]
    with pytest.raises(MLScaleError, match="the sample can't be predicted") as caught:
        model.predict({"left": [1, 2, 3]})
    assert caught.value.why == "it lacks the tensor 'right'"
    assert "'left': float32 (3,), 'right': float32 (2,)" in caught.value.fix


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in ("image", "text")])
def test_a_servable_that_gives_no_class_of_one_tensor_names_what_does(
    get_task_servable: GetServable, name: str
) -> None:
    servable = get_task_servable(name)
    samples = build_examples()[name].draw(np.random.default_rng(0), 2)
    with pytest.raises(
        MLScaleError, match=f"servable.predict does not fit a model of {servable.task_type.name}"
    ) as caught:
        servable.predict(np.zeros((2, 3), np.float32))
    load, outputs = caught.value.fix.splitlines()
    assert load.startswith(f"mlscale.load({str(servable.folder)!r})")
    assert len(mlscale.load(servable.folder).predict(samples)) == 2
    assert outputs.startswith("servable.predict_samples(samples).columns")
    assert servable.predict_samples(samples).columns


def png(pixels: NDArray[Any], orientation: int = 1, form: str = "PNG") -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(file, form, exif=exif)
    return file.getvalue()


def test_images_in_every_form(get_task_servable: GetServable, tmp_path: Path) -> None:
    model, rng = LoadedModel(get_task_servable("image")), np.random.default_rng(0)
    content = png(rng.integers(0, 256, (31, 17, 3), np.uint8), 6)
    (tmp_path / "a.png").write_bytes(content)
    opened = Image.open(tmp_path / "a.png")
    expected = model.predict(content)
    for x in (tmp_path / "a.png", str(tmp_path / "a.png"), opened, ImageOps.exif_transpose(opened), [content]):
        assert model.predict(x).probabilities.tobytes() == expected.probabilities.tobytes()
    assert (len(expected), expected.labels) == (1, [expected[0]["label"]])
    batch = rng.integers(0, 256, (300, 3, 8, 6), np.uint8)  # more than are computed at once
    both = model.predict(batch.astype(np.float64)), get_task_servable("image").predict(batch)
    np.testing.assert_allclose(both[0].probabilities, both[1].probabilities, rtol=1e-5, atol=1e-6)
    assert (both[0].labels, both[0].classes.tolist()) == (both[1].labels, both[1].classes.tolist())
    assert model.predict(batch[:0]).probabilities.shape == (0, 3)
    with pytest.raises(MLScaleError, match="the batch is") as caught:
        model.predict(batch[0])
    assert "raw[None]" in caught.value.fix


def test_bad_samples_are_named_with_the_reason(get_task_servable: GetServable, tmp_path: Path) -> None:
    model = LoadedModel(get_task_servable("image"))
    (tmp_path / "notes.png").write_bytes(b"no image")
    good = png(np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(MLScaleError, match="2 of 3 samples can't be predicted") as caught:
        model.predict([good, tmp_path / "notes.png", tmp_path / "notes.png"])
    assert caught.value.where == str(tmp_path / "notes.png")
    assert "not an image of a known format" in caught.value.why
    assert caught.value.fix.endswith("or an array (n, 3, 8, 6) of uint8")
    with pytest.raises(MLScaleError, match="1 of 2 samples can't be predicted") as caught:
        model.predict([good, str(tmp_path / "gone.png")])
    assert (caught.value.where, caught.value.why) == (str(tmp_path / "gone.png"), "No such file or directory")
    with pytest.raises(MLScaleError) as caught:
        model.predict({"island": "Dream"})
    assert caught.value.why == "it is an object, and the model takes images"


class FakeFrame:
    """A data frame of pandas, as far as it is used."""

    columns = ("a",)

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    def notna(self) -> list[dict[str, bool]]:
        return [{name: value is not None and not _is_nan(value) for name, value in row.items()} for row in self._rows]

    def astype(self, kind: type) -> FakeFrame:
        assert kind is object
        return self

    def where(self, kept: list[dict[str, bool]], other: None) -> FakeFrame:
        pairs = zip(self._rows, kept, strict=True)
        return FakeFrame([{name: value if keep[name] else other for name, value in row.items()} for row, keep in pairs])

    def to_dict(self, form: str) -> list[dict[str, Any]]:
        assert form == "records"
        return self._rows


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def test_rows_in_every_form(get_task_servable: GetServable) -> None:
    servable = get_task_servable("regression")
    model = LoadedModel(servable)
    rows = draw_plain_rows(servable, np.random.default_rng(3))
    expected = model.predict(rows)
    assert (expected.values.shape, expected.targets, expected.units) == (
        (COUNT, 2),
        ("body mass", "age"),
        ("g", ""),
    )
    assert expected[0] == {
        "value": dict(zip(expected.targets, expected.values[0].tolist(), strict=True)),
        "unit": {"body mass": "g"},
    }
    frames = [
        pa.Table.from_pylist(rows),
        FakeFrame([{name: math.nan if value is None else value for name, value in row.items()} for row in rows]),
        iter(rows),
        tuple(rows),
    ]
    for frame in frames:
        assert model.predict(frame).values.tobytes() == expected.values.tobytes()
    assert len(model.predict(rows[0])) == 1
    with pytest.raises(MLScaleError, match="1 of 2 samples can't be predicted") as caught:
        model.predict([rows[0], {**rows[1], "length": "long"}])
    assert (caught.value.where, caught.value.why) == ("x[1]", "length is 'long', no number")
    assert "the model takes rows with the columns length, " in caught.value.fix
    # Beyond float32; and in it, where the model's output overflows: no number must be read from that.
    columns: Any = model.encoder.columns  # type: ignore[attr-defined]
    column = next(column for column in columns if column.name == "length")
    for length, why in ((1e300, "length is 1e+300, and 9992.6 to"), (column.limits[1], "the model's output is not a")):
        with pytest.raises(MLScaleError, match="1 of 2 samples can't be predicted") as caught:
            model.predict([rows[0], {**rows[1], "length": length}])
        assert (caught.value.where, str(caught.value.why).startswith(why)) == ("x[1]", True), caught.value.why
    for x in (np.zeros((2, 3)), "Dream", Path("rows.csv")):
        with pytest.raises(MLScaleError, match="the sample can't be predicted"):
            model.predict(x)


def test_texts_and_documents(get_task_servable: GetServable, tmp_path: Path) -> None:
    model = LoadedModel(get_task_servable("text"))
    texts = ["a penguin 🐧", "x" * 50, "a\0b"]
    expected = model.predict(texts)
    for x in (pa.array(texts), np.array(texts), [text.encode() for text in texts]):
        assert model.predict(x).probabilities.tobytes() == expected.probabilities.tobytes()
    (tmp_path / "a.txt").write_text(texts[0])
    alone = model.predict(texts[0]).probabilities.tobytes()
    assert model.predict(tmp_path / "a.txt").probabilities.tobytes() == alone
    with pytest.raises(MLScaleError) as caught:
        model.predict(["", "a"])
    assert (caught.value.where, caught.value.why) == ("x[0]", "it is empty")
    language = LoadedModel(get_task_servable("language"))
    printed = language.predict("a document of several windows, " * 9)
    assert printed.tokens.tolist() == [31 * 9 + 1]
    assert printed[0]["nats_per_token"] == pytest.approx(printed.nats_per_token[0])
    assert printed.nats_per_token[0] == pytest.approx(printed.nats[0] / (31 * 9 + 1))
    with pytest.raises(AttributeError, match="predictions of language have no 'labels'; they have: nats, tokens"):
        printed.labels  # noqa: B018


def test_the_column_of_a_data_frame(get_task_servable: GetServable, tmp_path: Path) -> None:
    model = LoadedModel(get_task_servable("text"), trained_on="body")
    texts, kinds = ["a penguin 🐧", "x" * 50], ["bird", "noise"]
    expected = model.predict(texts).probabilities.tobytes()
    rows = [{"kind": kind, "body": text, "n": 1} for text, kind in zip(texts, kinds, strict=True)]
    for frame in (pa.Table.from_pylist(rows), FakeFrame(rows)):
        assert model.predict(frame).probabilities.tobytes() == expected
    # By a usual name, as the only one of texts, without a header, as bytes.
    for columns in (
        {"kind": kinds, "Text": texts},
        {"n": [1, 2], "remark": texts},
        {"note": kinds, "content": [text.encode() for text in texts]},
    ):
        assert model.predict(pa.table(dict(columns))).probabilities.tobytes() == expected, columns
    headless = FakeFrame([{0: 1, 1: text} for text in texts])  # type: ignore[dict-item]
    assert model.predict(headless).probabilities.tobytes() == expected
    for given, what, fix in (
        ({"a": texts, "b": kinds}, "it is not clear which column is scored", "predict(x['a'])"),
        ({"text": texts, "file": kinds}, "it is not clear which column is scored", "predict(x['text'])"),
        ({"a": [1, 2]}, "the data frame has no column of texts or files", "give a data frame with such a column"),
    ):
        with pytest.raises(MLScaleError) as caught:
            model.predict(pa.table(dict(given)))
        assert (caught.value.what, caught.value.fix) == (what, fix)
    with pytest.raises(MLScaleError, match="1 of 2 samples can't be predicted") as caught:
        model.predict(pa.table({"body": ["a", None]}))
    assert (caught.value.where, caught.value.why) == ("x[1]", "it is null, not a text")
    assert len(model.predict(pa.table({"body": pa.array([], pa.string())}))) == 0
    images = LoadedModel(get_task_servable("segmentation"))
    paths = [str(tmp_path / "0.png"), str(tmp_path / "1.png")]
    contents = build_examples()["segmentation"].draw(np.random.default_rng(0), 2)
    for path, content in zip(paths, contents, strict=True):
        Path(path).write_bytes(content)
    masks = images.predict(contents).masks
    for x in (np.array(paths), pa.array(paths), pa.table({"path": paths, "n": [1, 2]}), pa.table({"of": contents})):
        assert np.array_equal(images.predict(x).masks, masks)


def test_masks_and_sets_of_labels(get_task_servable: GetServable) -> None:
    images = build_examples()["segmentation"].draw(np.random.default_rng(0), 4)
    masks = LoadedModel(get_task_servable("segmentation")).predict(images)
    assert (masks.masks.shape, masks.masks.dtype) == ((4, 8, 6), np.uint8)
    assert set(masks[0]["shares"]) <= {"adelie", "chinstrap", "gentoo"}
    several = LoadedModel(get_task_servable("multilabel")).predict(images)
    assert [set(answer["labels"]) for answer in several] == several.labels
    assert [row > 0.5 for row in several.probabilities.ravel()] == [
        label in labels for labels in several.labels for label in ("adelie", "chinstrap", "gentoo")
    ]


def test_what_is_seen_in_a_session(get_task_servable: GetServable) -> None:
    model = LoadedModel(get_task_servable("text"))
    assert repr(model).startswith("<model of classification: takes texts")
    printed = model.predict(["a", "b"])
    assert repr(printed) == "<2 predictions of classification: labels, probabilities, classes>"
    assert {"labels", "answers"} <= set(dir(printed))


def test_a_forward_that_draws_gives_the_same_rows_again_and_leaves_the_generator_alone() -> None:
    example = build_examples()["image"]
    task: Any = example.task
    task.model.append(nn.Dropout(0.5))
    model = build_torch_model(example)
    task.model[-1].train()
    samples = example.draw(np.random.default_rng(0), 5)
    state = torch.get_rng_state()
    first, second = (model.predict_samples(samples).columns["probabilities"] for _ in range(2))
    assert np.array_equal(first, second)
    assert torch.equal(state, torch.get_rng_state())
