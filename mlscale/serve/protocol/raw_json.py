"""Reads raw samples from a JSON document: rows by column name, texts, or nested lists of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlscale.data.encoders.encoder import EncodedSamples
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.export.engines.engine import Port
from mlscale.serve.http.request_error import Refused
from mlscale.serve.protocol import json_numbers
from mlscale.serve.served_model import ServedModel

INPUTS, ID = "inputs", "id"
_KINDS = {"table": "row", "text": "text", "document": "text"}
_EXAMPLES = {
    "table": '{"<column>": <value>, …} or {"inputs": [row, …]}',
    "text": '"<text>" or {"inputs": ["<text>", …]}',
    "document": '"<text>" or {"inputs": ["<text>", …]}',
}


def parse_samples(model: ServedModel, document: object) -> tuple[EncodedSamples, object]:
    """Return the samples of a document, and the id or the ids in it.

    The document is `{"inputs": …, "id": …}`, one text, or one row; the key `id` of a row that is not a column is its
    id.

    Raises:
        Refused: it is something else, has no sample or too many, or one that can't be used.
    """
    encoder = model.servable.encoder
    kind = encoder.kind
    # First: a table with a column of this name has its rows in a list.
    if isinstance(document, dict) and INPUTS in document:
        unknown = sorted(set(document) - {INPUTS, ID})
        if unknown:
            hint = '; a row with a column of the name inputs is sent as {"inputs": [row]}' if kind == "table" else ""
            raise Refused(f"unknown key '{unknown[0][:200]}'; known are inputs and id{hint}")
        return _pack_inputs(model, document[INPUTS]), document[ID] if ID in document else _read_row_ids(model, document)
    if isinstance(document, dict) and isinstance(encoder, TableEncoder):
        return pack_raw(model, [document], is_alone=True), _read_row_id(encoder, document)
    if isinstance(document, str) and kind in ("text", "document"):
        return pack_raw(model, [document], is_alone=True), None
    example = _EXAMPLES.get(kind, '{"inputs": [sample, …]}')
    raise Refused(f'send {example}, with an optional "id" next to it')


def _read_row_ids(model: ServedModel, document: Mapping[str, Any]) -> list[object] | None:
    """Return the ids of the rows of a request; None where no row has one."""
    encoder, rows = model.servable.encoder, document[INPUTS]
    if not isinstance(encoder, TableEncoder) or not isinstance(rows, list):
        return None
    ids = [_read_row_id(encoder, row) for row in rows if isinstance(row, dict)]
    # Where some have one, the others lack it, which the caller reports.
    return ids if any(id_ is not None for id_ in ids) else None


def _read_row_id(encoder: TableEncoder, row: Mapping[str, Any]) -> object:
    """Return the key `id` of a row, unless it is a column."""
    if any(column.name == ID for column in encoder.columns):
        return None
    id_ = row.get(ID)
    # A table may number its rows.
    return str(id_) if type(id_) is int else id_


def pack_raw(model: ServedModel, raw: Sequence[Any], *, is_alone: bool = False) -> EncodedSamples:
    """Return raw samples as the graph takes them.

    Raises:
        Refused: none or too many, or one that can't be used: the first of them, with the reason.
    """
    if not raw:
        raise Refused("no samples in the request")
    if len(raw) > model.limits.samples:
        raise json_numbers.build_count_refusal(model)
    encoder = model.servable.encoder
    if isinstance(encoder, TableEncoder) and len(raw) > 1:
        # To name a similar column takes long, and is done for one row of a request.
        names = [column.name for column in encoder.columns]
        for number, row in enumerate(raw):
            if not isinstance(row, Mapping) or any(name not in row for name in names):
                raise _build_sample_refusal(model, number, encoder.pack_samples([row]).bad[0], is_alone)
    packed = model.servable.pack_samples(raw)
    if packed.bad:
        number = min(packed.bad)
        raise _build_sample_refusal(model, number, packed.bad[number], is_alone)
    return packed


def _pack_inputs(model: ServedModel, inputs: object) -> EncodedSamples:
    servable = model.servable
    if servable.encoder.kind in _KINDS and not _are_tokens(model, inputs):
        samples = inputs if isinstance(inputs, list) else [inputs]
        return pack_raw(model, samples)
    if len(servable.inputs) == 1:
        port = servable.inputs[0]
        tensors = {port.name: json_numbers.parse_samples(port, inputs)}
    else:
        samples = inputs if isinstance(inputs, list) else [inputs]
        tensors = {port.name: _parse_tensor(port, samples) for port in servable.inputs}
    packed = EncodedSamples(tensors, {})
    if not packed.size:
        raise Refused("no samples in the request")
    json_numbers.refuse_bad_rows(model, tensors, "inputs[{}]")
    return packed


def _are_tokens(model: ServedModel, inputs: object) -> bool:
    """Return whether numbers are sent to a text model of format 1, whose graph takes them."""
    return model.servable.format == 1 and isinstance(inputs, list) and not any(isinstance(item, str) for item in inputs)


def _parse_tensor(port: Port, samples: Sequence[object]) -> Any:
    """Return a tensor of samples that have several, by name."""
    values = []
    for number, sample in enumerate(samples):
        if not isinstance(sample, dict) or port.name not in sample:
            raise Refused(f"inputs[{number}] lacks the tensor '{port.name}': a sample is an object of tensors by name")
        values.append(sample[port.name])
    return json_numbers.cast_samples(port, json_numbers.parse_array(port, values))


def _build_sample_refusal(model: ServedModel, number: int, reason: str, is_alone: bool) -> Refused:
    noun = _KINDS.get(model.servable.encoder.kind, "sample")
    where = f"the {noun}" if is_alone else f"inputs[{number}]"
    return Refused(f"{where} can't be used: {reason[:500]}")
