"""The servable's recorded requests as those by which TensorFlow Serving warms a version up before it switches to it.

Format: https://www.tensorflow.org/tfx/serving/saved_model_warmup, a TFRecord file of `PredictionLog` messages. They are
written by hand, of nested fields with a length each: their package depends on all of TensorFlow and is one for tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mlscale.export.servable import Servable, drop_bad_rows
from mlscale.export.warmup import WARMUP, read_warmup
from mlscale.targets.tfserving.saved_model import SIGNATURE, import_tensorflow

_FOLDER, _FILE = "assets.extra", "tf_serving_warmup_requests"
# The numbers of the fields: PredictionLog.predict_log, PredictLog.request, PredictRequest.model_spec and .inputs,
# ModelSpec.name and .signature_name, and the key and value of an entry of a map.
_PREDICT_LOG, _REQUEST, _MODEL_SPEC, _INPUTS, _NAME, _SIGNATURE_NAME, _KEY, _VALUE = 6, 1, 1, 2, 1, 3, 1, 2
_LENGTH_DELIMITED = 2


def write_warmup_requests(servable: Servable, saved: Path, model: str) -> None:
    """Write the requests next to a SavedModel; nothing where none are recorded.

    Args:
        servable: with its recorded requests.
        saved: the folder of the SavedModel.
        model: the name that it is served by.
    """
    warmup = read_warmup(servable.folder / WARMUP)
    samples = [request.sample for request in warmup.requests if request.answer is not None] if warmup else []
    if not samples:
        return
    tf = import_tensorflow()
    (saved / _FOLDER).mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(saved / _FOLDER / _FILE)) as writer:
        for sample in samples:
            writer.write(_build_log(tf, model, drop_bad_rows(servable.pack_samples([sample]))))


def _build_log(tf: Any, model: str, tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Return a PredictionLog with the request for tensors by name."""
    spec = _build_field(_NAME, model.encode()) + _build_field(_SIGNATURE_NAME, SIGNATURE.encode())
    request = _build_field(_MODEL_SPEC, spec)
    for name, values in tensors.items():
        tensor = tf.make_tensor_proto(values).SerializeToString()
        request += _build_field(_INPUTS, _build_field(_KEY, name.encode()) + _build_field(_VALUE, tensor))
    return _build_field(_PREDICT_LOG, _build_field(_REQUEST, request))


def _build_field(number: int, content: bytes) -> bytes:
    return _encode_number(number << 3 | _LENGTH_DELIMITED) + _encode_number(len(content)) + content


def _encode_number(number: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first, each but the last marked by its eighth bit."""
    groups = [number & 127]
    while number := number >> 7:
        groups.append(number & 127)
    return bytes([*(group | 128 for group in groups[:-1]), groups[-1]])
