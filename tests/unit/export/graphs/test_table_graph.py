"""The encoder of a table in ONNX: bitwise the one in numpy, and joined to an exported model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch

from mlscale.compress.quantize import quantize_model
from mlscale.data.encoders.encoder import INPUT
from mlscale.data.encoders.table_columns import CategoryColumn, NumberColumn
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.export.engines.onnx_engine import import_onnx_runtime
from mlscale.export.graphs.encoder_graph import prepend_encoder_graph
from mlscale.export.graphs.table_graph import build_table_graph
from mlscale.export.onnx_export import export_onnx
from mlscale.export.served_module import build_served_module
from mlscale.task_types.tensor_type import TensorType
from mlscale.tasks.models.tabular import TabularNet
from tests.unit.data.encoders.random_tables import draw_row, fit_random


def run_graph(model: onnx.ModelProto, encoder: TableEncoder, rows: list[dict[str, Any]]) -> Any:
    session = import_onnx_runtime().InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    packed = encoder.pack_samples(rows)
    assert not packed.bad
    assert [port.name for port in session.get_inputs()] == [spec.name for spec in encoder.graph_inputs]
    return session.run(None, dict(packed.tensors))[0]


def draw_good_rows(seed: int, count: int) -> tuple[TableEncoder, list[dict[str, Any]]]:
    rng = np.random.default_rng(seed)
    encoder = fit_random(rng)
    drawn = [draw_row(rng, encoder) for _ in range(count * 2)]
    bad = encoder.encode_samples(drawn).bad
    assert encoder.pack_samples(drawn).bad == bad
    return encoder, [row for number, row in enumerate(drawn) if number not in bad][:count]


def test_the_graph_is_bitwise_the_encoder() -> None:
    encoder, rows = draw_good_rows(0, 2000)
    assert len(rows) == 2000
    features = run_graph(build_table_graph(encoder), encoder, rows)
    assert features.dtype == np.float32
    assert features.tobytes() == encoder.encode_samples(rows).tensors[INPUT].tobytes()


@pytest.mark.parametrize(
    "columns",
    [
        (NumberColumn("a", 1.0, 2.0, 3.0, 0.0, 9.0, False),),
        (NumberColumn("a", 1.0, 2.0, 3.0, 0.0, 9.0, True),),
        (CategoryColumn("b", ("", "x"), False),),
        (CategoryColumn("b", ("x",), False), NumberColumn("a", 0.1, 0.2, 0.3, 0.0, 9.0, True)),
    ],
    ids=["numbers", "missing", "categories", "both"],
)
def test_columns_of_one_kind(columns: Any) -> None:
    encoder = TableEncoder(columns)
    rows: list[dict[str, Any]] = [{"a": 7, "b": "x"}, {"a": None, "b": None}, {"a": 0.1, "b": "new 🐧"}]
    features = run_graph(build_table_graph(encoder), encoder, rows)
    assert features.tobytes() == encoder.encode_samples(rows).tensors[INPUT].tobytes()


@pytest.mark.parametrize("is_int8", [False, True])
def test_it_joins_an_exported_model(is_int8: bool) -> None:
    encoder, rows = draw_good_rows(1, 64)
    width = len(encoder.feature_names)
    torch.manual_seed(0)
    network = TabularNet(width, 3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # a fresh one answers zeros
    content = export_onnx(build_served_module(network, TensorType(), encoder))
    if is_int8:
        content = quantize_model(content, "dynamic")
    plain = import_onnx_runtime().InferenceSession(content, providers=["CPUExecutionProvider"])
    (expected,) = plain.run(None, {INPUT: encoder.encode_samples(rows).tensors[INPUT]})
    joined = run_graph(onnx.load_from_string(prepend_encoder_graph(encoder, content)), encoder, rows)
    assert joined.tobytes() == expected.tobytes()
    assert np.unique(joined).size > 5  # and not the same for all: one scale of int8 is that of the largest row
