"""The text format is that of protobuf: Triton's own messages read it."""

from __future__ import annotations

from typing import Any

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from mlscale.targets.triton.model_config import EnumName, format_message

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
