"""The target TensorFlow Serving: a folder of versions, each a SavedModel, which the server loads as it is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from mlscale.export.engines.engine import Engine
from mlscale.export.servable import MODEL, Servable, drop_bad_rows
from mlscale.export.warmup import WARMUP, read_warmup
from mlscale.targets.target import Target, TargetServer
from mlscale.targets.tfserving.model_server import format_server_command, require_model_server, start_model_server
from mlscale.targets.tfserving.saved_model import SIGNATURE, SavedModelEngine, import_tensorflow, write_saved_model


class TFServingTarget(Target):
    """A SavedModel with the servable's inputs and outputs, in float32.

    Args:
        version: the number of the version, which the server reports; of several it loads the largest.
        image: of the container that is started where no tensorflow_model_server is installed.
        wait_s: the longest that the server may take to load the model, seconds.
    """

    name: ClassVar[str] = "tfserving"
    extra: ClassVar[str] = "tfserving"
    packages: ClassVar[tuple[str, ...]] = ("tensorflow", "onnx")

    def __init__(self, version: int = 1, image: str = "tensorflow/serving:latest", wait_s: float = 300.0) -> None:
        self.version, self.image, self.wait_s = version, image, wait_s

    def build(self, servable: Servable, folder: Path) -> None:
        """Write `<model>/<version>/saved_model.pb`, and the servable's recorded requests as warm-up.

        Raises:
            MLScaleError: TensorFlow has no counterpart of some operators, which are all named.
        """
        # A server takes the model's name in addresses, and the version from the folder.
        base = folder / re.sub(r"[^\w.-]", "_", str(servable.document["name"]))
        saved = base / str(self.version)
        write_saved_model((servable.folder / MODEL).read_bytes(), servable.inputs, servable.outputs, saved)
        write_warmup_requests(servable, saved, base.name)

    def open_engine(self, servable: Servable, folder: Path) -> Engine:
        """Return TensorFlow with the SavedModel."""
        engine = SavedModelEngine(_find_base(folder) / str(self.version))
        # Names and shapes are what clients rely on.
        engine.check_ports(servable.inputs, servable.outputs)
        return engine

    def format_start_command(self, folder: Path) -> str:
        """Return the command that starts the server: the installed one, else a container."""
        return shlex.join(format_server_command(_find_base(folder.absolute()), self.image))

    def check_server_installed(self) -> None:
        """Raise an error if neither the binary nor a container engine is installed."""
        require_model_server()

    @contextmanager
    def start_server(self, servable: Servable, folder: Path) -> Iterator[TargetServer]:
        """Start tensorflow_model_server, or a container of it, while the block runs."""
        with start_model_server(servable, _find_base(folder), self.image, self.wait_s) as server:
            yield server


def _find_base(folder: Path) -> Path:
    """Return the folder of the model, the only one in that of the target."""
    (base,) = (path for path in folder.iterdir() if path.is_dir())
    return base


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
