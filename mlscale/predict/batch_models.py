"""Models that predict a batch: a servable by ONNX Runtime, without torch; a trained task by torch."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlscale.encoders.encoder import Encoder
from mlscale.encoders.image_encoder import ImageEncoder
from mlscale.encoders.tensor_encoder import TensorEncoder
from mlscale.encoders.text_encoder import TextEncoder

PredictionColumns = dict[str, list[Any] | NDArray[Any]]
"""Columns of a batch, n each."""


class BatchModel(Protocol):
    """A model that predicts batches.

    Attributes:
        kind: of its task.
        labels: names of the classes by number.
        encoder: of its raw input.
    """

    @property
    def kind(self) -> str: ...
    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def encoder(self) -> Encoder: ...

    def __call__(self, raw: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """Return the outputs for n samples, named as by `predict_step`."""


@dataclass(frozen=True)
class ServableModel:
    """A servable as a model: needs onnxruntime and numpy alone."""

    servable: Any
    kind: str = "classification"

    @classmethod
    def load(cls, folder: Path, threads: int) -> ServableModel:
        """Read and verify a servable.

        Raises:
            MLScaleError: it is corrupt, or onnxruntime is not installed (exit code 5).
        """
        # Imported on use: runs are predicted by torch, where onnxruntime need not be installed.
        from mlscale.export.servable import load

        return cls(load(folder, threads=threads))

    @property
    def labels(self) -> Sequence[str]:
        return tuple(self.servable.labels)

    @property
    def encoder(self) -> Encoder:
        given = self.servable.input
        return build_format1_encoder(given.shape[1:], given.dtype, self.servable.document.get("preprocessing") or {})

    def __call__(self, raw: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        return {"logits": self.servable.logits(raw)}


def build_format1_encoder(shape: tuple[int, ...], dtype: str, preprocessing: Mapping[str, Any]) -> Encoder:
    """Return the encoder of a servable of format 1, whose kind of input follows from its shape and dtype."""
    if len(shape) == 1 and dtype == "int64":
        return TextEncoder(shape[0])
    if len(shape) != 3:
        return TensorEncoder.from_shape(shape, dtype)
    from mlscale.data.images.fast_decoder import DECODE_VERSION
    from mlscale.data.images.pil import MAX_PIXELS

    return ImageEncoder(
        shape=(shape[0], shape[1], shape[2]),
        dtype=dtype,
        is_resized=bool(preprocessing.get("resize")),
        max_pixels=preprocessing.get("max_pixels") or MAX_PIXELS,
        # The graph normalises.
        mean=(),
        std=(),
        decode_version=DECODE_VERSION,
    )


def build_prediction_columns(
    kind: str, outputs: Mapping[str, NDArray[Any]], labels: Sequence[str]
) -> PredictionColumns:
    """Return the columns of a kind, from a model's outputs for n samples.

    classification: `predicted` (a name), `class`, `confidence`, `probabilities`; multilabel: `predicted` (names),
    `probabilities`; regression: `value`; segmentation: `mask` (a PNG of class numbers); language: `nats`, `tokens`.
    """
    if kind == "language":
        return {"nats": outputs["nats"].astype(np.float32), "tokens": outputs["tokens"].astype(np.int64)}
    if kind == "regression":
        return {"value": outputs["value"].astype(np.float32)}
    logits = np.asarray(outputs["logits"], np.float32)
    # PNG of class numbers: lossless, compressed well where neighbours are equal, read by any image library. One byte
    # for a class, as in training data.
    if kind == "segmentation":
        return {"mask": [_encode_png(row) for row in logits.argmax(1).astype(np.uint8)]}
    if kind == "multilabel":
        # In float64, where the exponential overflows only beyond logits of -709; in float32 beyond -88.
        shares = 1 / (1 + np.exp(-logits.astype(np.float64)))
        predicted_names = [[labels[index] for index in np.flatnonzero(row).tolist()] for row in logits > 0]
        return {"predicted": predicted_names, "probabilities": shares.astype(np.float32)}
    # The same arithmetic as `export.servable.softmax`: a served model and batch scoring agree.
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities = shifted / shifted.sum(-1, keepdims=True)
    classes = probabilities.argmax(-1)
    return {
        "predicted": [labels[number] for number in classes.tolist()],
        "class": classes.astype(np.int32),
        "confidence": probabilities.max(-1),
        "probabilities": probabilities,
    }


def _encode_png(classes: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(classes).save(file, "PNG")
    return file.getvalue()
