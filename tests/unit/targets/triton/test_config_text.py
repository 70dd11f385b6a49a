"""The text format is that of protobuf: Triton's own messages read it, and what is read back is what was written."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from mlscale.targets.triton.config_text import EnumName, format_message, list_field, parse_message

CONFIG: dict[str, Any] = {
    "name": 'a "name" \\ of\tßtreets',
    "max_batch_size": 8,
    "input": [
        {"name": "x", "data_type": EnumName("TYPE_FP32"), "dims": [-1, 3]},
        {"name": "y", "data_type": EnumName("TYPE_STRING"), "dims": [1], "reshape": {"shape": []}},
    ],
    "dynamic_batching": {},
    "instance_group": [{"count": 2, "kind": EnumName("KIND_CPU")}],
}


def test_protobuf_reads_it() -> None:
    message = text_format.Parse(format_message(CONFIG), ModelConfig())
    assert message.name == CONFIG["name"]
    assert message.max_batch_size == 8
    assert message.HasField("dynamic_batching")
    assert [list(entry.dims) for entry in message.input] == [[-1, 3], [1]]
    assert message.input[1].HasField("reshape")
    assert message.instance_group[0].kind == message.instance_group[0].KIND_CPU


def test_what_is_read_is_what_was_written() -> None:
    read = parse_message(format_message(CONFIG))
    # One entry of a repeated field can't be known as such.
    assert read | {"instance_group": list_field(read, "instance_group")} == CONFIG
    assert list_field(read, "output") == []


@pytest.mark.parametrize("text", ["name", "name: ", "name: [1", "a { b: 1", "name ~", "1: 2", "}"])
def test_what_is_not_a_message_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"can't|has no end|is followed"):
        parse_message(text)
