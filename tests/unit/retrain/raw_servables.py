"""Servables that take raw samples of one kind, and predict nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mlscale.data.decoding.fast_decoder import DECODE_VERSION
from mlscale.data.encoders.encoder import Encoder
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.data.table_parsing.columns import DataTable
from mlscale.export.servable import Servable
from mlscale.task_types.registry import get_task_type
from mlscale.task_types.task_type import AnswerNames, TargetColumn

IMAGES = ImageEncoder((1, 2, 2), "uint8", False, 100, (0.0,), (1.0,), DECODE_VERSION)
ROWS = TableEncoder.fit(
    DataTable({"age": np.array([1.0, 2.0]), "city": ["Rome", "Paris"]}, ["1", "2"]), ["age", "city"], where="train"
)
TEXTS = TextEncoder(8)


def make_raw_servable(
    encoder: Encoder, kind: str = "classification", *, labels: tuple[str, ...] = (), targets: tuple[str, ...] = ()
) -> Servable:
    """A model that can't compute."""
    names = AnswerNames(labels, tuple(TargetColumn(name) for name in targets))
    engine: Any = None
    return Servable(Path(), {"format": "mlscale/servable/2"}, get_task_type(kind), encoder, (), (), names, engine)
