"""The encoders of texts in ONNX: bitwise those in numpy."""

from __future__ import annotations

import numpy as np
import pytest

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import INPUT, Encoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.export.engines.onnx_engine import import_onnx_runtime
from mlscale.export.graphs.encoder_graph import build_encoder_graph

TEXTS = ["aé", b"\xff\xfe\x80" * 5, "🐧", b"x\xff".decode("utf-8", "surrogateescape"), "a", "abcdefgh" * 4, "\n"]


@pytest.mark.parametrize("encoder", [TextEncoder(8), TextEncoder(1), DocumentEncoder(6), DocumentEncoder(1)])
def test_the_graph_is_bitwise_the_encoder(encoder: Encoder) -> None:
    texts = TEXTS if isinstance(encoder, DocumentEncoder) else [*TEXTS, "a\0b\0", b"\0"]
    built = build_encoder_graph(encoder)
    assert built is not None
    session = import_onnx_runtime().InferenceSession(built[0].SerializeToString(), providers=["CPUExecutionProvider"])
    packed, encoded = encoder.pack_samples(texts), encoder.encode_samples(texts)
    assert not packed.bad
    given = {port.name: packed.tensors[port.name] for port in session.get_inputs()}
    (tokens,) = session.run([built[1]], given)
    assert tokens.dtype == np.int64
    assert tokens.tobytes() == encoded.tensors[INPUT].tobytes()
