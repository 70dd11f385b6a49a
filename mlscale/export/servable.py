"""A servable: the folder of an exported model with all that production needs. Read with numpy and onnxruntime alone.

`servable.yaml` has the inputs and outputs, the model's origin, and the digest of every file. The folder is not trusted:
file names must stay inside it, digests are verified before anything is used, nothing is executed.

Casts the tensors that a client has made to the dtype and shape that a model takes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.contracts.servable_yaml import DOCUMENT as DOCUMENT
from mlscale.contracts.servable_yaml import read_document as read_document
from mlscale.data.encoders.encoder import EncodedSamples, Encoder
from mlscale.data.encoders.stored_encoder import parse_encoder
from mlscale.errors import MLScaleError, describe_wrong_content
from mlscale.export.engines.engine import Engine, Port
from mlscale.export.engines.onnx_engine import PORT_DTYPES
from mlscale.export.engines.runtime import Runtime, open_runtime
from mlscale.reference.stored_reference import StoredReference
from mlscale.task_types.registry import get_task_type
from mlscale.task_types.softmax import compute_softmax
from mlscale.task_types.task_type import AnswerNames, PredictionColumns, TaskType
from mlscale.task_types.tensor_type import TensorType

MODEL, PARITY, REFERENCE = "model.onnx", "parity.json", "reference"
_WINDOWS = 256  # of documents, that are computed at once


class Prediction(NamedTuple):
    """The model's predictions for n samples.

    Attributes:
        labels: the name of each sample's class; its number as text where classes have no names.
        probabilities: of every class, float32 (n, classes).
        classes: the number of each sample's class, int64 (n,).
    """

    labels: list[str]
    probabilities: NDArray[np.float32]
    classes: NDArray[np.int64]


class RawPredictions(NamedTuple):
    """Predictions for raw samples.

    Attributes:
        columns: as of the task type's `build_predictions`, a row for each sample that is not bad, in their order.
        bad: the reason of each sample that could not be encoded, by its number.
    """

    columns: PredictionColumns
    bad: Mapping[int, str]


@dataclass(frozen=True)
class Servable:
    """A model that is ready for predictions; created by `load`.

    Attributes:
        folder: the folder that it was read from.
        document: servable.yaml.
        task_type: says what the outputs mean.
        encoder: from a raw sample to tensors.
        inputs: what the graph takes: samples from `encoder.graph_start` on.
        outputs: what the graph gives, as the task's `predict_step`.
        names: of classes and targets.
    """

    folder: Path
    document: Mapping[str, Any] = field(repr=False)
    task_type: TaskType = field(repr=False)
    encoder: Encoder = field(repr=False)
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    names: AnswerNames = field(repr=False)
    engine: Engine = field(repr=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes by number."""
        return self.names.labels

    @cached_property
    def format(self) -> int:
        """The format of the document."""
        return int(str(self.document["format"]).rpartition("/")[2])

    @property
    def input(self) -> Port:
        """The first tensor of an encoded sample, before the graph's part of the encoder."""
        first = self.encoder.inputs[0]
        return Port(first.name, first.dtype, (-1, *first.shape))

    @property
    def output(self) -> Port:
        """The first output of the graph."""
        return self.outputs[0]

    def pack_samples(self, raw: Sequence[Any]) -> EncodedSamples:
        """Return raw samples as the graph takes them."""
        # The graph of format 1 begins with the model's own tensors.
        return self.encoder.pack_samples(raw) if self.format > 1 else self.encoder.encode_samples(raw)

    def compute(self, tensors: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Return the graph's outputs by name, (n, …) each, for `inputs` by name."""
        return self.engine.compute(tensors)

    def compute_samples(self, packed: EncodedSamples) -> Mapping[str, NDArray[Any]]:
        """Return the outputs of the samples that are not bad, a row for each."""
        if packed.counts is None:
            return self.compute(drop_bad_rows(packed))
        # A document may have thousands of windows, of which all together would not fit into memory.
        rows = len(next(iter(packed.tensors.values())))
        parts = [
            self.compute({name: values[at : at + _WINDOWS] for name, values in packed.tensors.items()})
            for at in range(0, max(rows, 1), _WINDOWS)
        ]
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return self.task_type.merge_rows(outputs, packed.counts[packed.counts > 0])

    def predict_samples(self, raw: Sequence[Any]) -> RawPredictions:
        """Return predictions for raw samples: files' bytes, rows by column name, texts, arrays, by the kind of encoder.

        Raises:
            MLScaleError: the graph fails.
        """
        packed = self.pack_samples(raw)
        outputs = self.compute_samples(packed)
        return RawPredictions(self.task_type.build_predictions(outputs, self.labels), packed.bad)

    def predict(self, raw: NDArray[Any]) -> Prediction:
        """Return labels and probabilities of a batch, of a model with one input, that gives one class for each sample.

        Args:
            raw: samples as they are decoded, (n, channels, height, width) for images; of the input's dtype, or of
                another with values that it can hold.

        Raises:
            MLScaleError: the model gives something else or takes several tensors; another shape, or values that the
                input's dtype can't hold.
        """
        if not self.task_type.is_one_class or len(self.inputs) > 1:
            takes = f"takes {', '.join(port.name for port in self.inputs)}" if len(self.inputs) > 1 else ""
            raise MLScaleError(
                f"servable.predict does not fit a model of {self.task_type.name}",
                where=str(self.folder / DOCUMENT),
                why="it gives one class for each sample, of one tensor; this model "
                + (takes or f"gives {', '.join(port.name for port in self.outputs)}"),
                fix=f"mlscale.load({str(self.folder)!r}).predict(x), which takes samples of any model\n"
                "servable.predict_samples(samples).columns, the outputs by name",
            )
        probabilities = compute_softmax(self.logits(raw))
        classes = probabilities.argmax(-1)
        return Prediction([self.labels[number] for number in classes.tolist()], probabilities, classes)

    def logits(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Return the graph's logits, float32 (n, classes); see `predict`."""
        return self.compute({self.inputs[0].name: cast_input(raw, self.inputs[0])})[self.output.name]

    def read_reference(self) -> StoredReference:
        """Return the reference profile of any format: a sketch of each column, the score, and the words of texts."""
        return StoredReference.load_profile(self.folder / REFERENCE, self.labels)


def load(folder: str | Path, *, threads: int = 1, runtime: Runtime | None = None) -> Servable:
    """Read a servable.

    Args:
        folder: written by `mlscale export`.
        threads: number of threads that compute one batch; a server has one per worker.
        runtime: what computes it, with its own number of threads; None for ONNX Runtime on the CPU.

    Raises:
        MLScaleError: it is not a servable, of a later format, corrupt or altered; the runtime is not installed, or
            would compute elsewhere (exit code 5).
    """
    folder = Path(folder).absolute()
    document = read_document(folder)
    where = str(folder / DOCUMENT)
    try:
        inputs, outputs = (tuple(map(_parse_port, document[key])) for key in ("inputs", "outputs"))
        names = AnswerNames.parse_document(document)
        task_type, encoder = _parse_kind(document, inputs[0], where)
        files = {str(name): (str(entry["sha256"]), int(entry["bytes"])) for name, entry in document["files"].items()}
        if task_type.is_one_class and outputs[0].shape[1:] != (len(names.labels),):
            raise ValueError(f"{len(names.labels)} labels for outputs of {outputs[0].shape}")
        if MODEL not in files:
            raise ValueError(f"no digest of {MODEL}")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise MLScaleError(
            f"{DOCUMENT} is corrupt",
            where=where,
            why=describe_wrong_content(error),
            fix="mlscale export <its run>, which makes the servable again",
        ) from error
    # Only the model's bytes are kept; other files are read later, by those that need them.
    contents = {name: read_verified(folder, name, *entry, keep=name == MODEL) for name, entry in files.items()}
    chosen = runtime or Runtime(threads=threads)
    engine = open_runtime(chosen, contents[MODEL], inputs, outputs, str(folder / MODEL))
    return Servable(folder, document, task_type, encoder, inputs, outputs, names, engine)


def drop_bad_rows(packed: EncodedSamples) -> Mapping[str, NDArray[Any]]:
    """Return the tensors without the rows of bad samples, of which each sample has one."""
    if not packed.bad:
        return packed.tensors
    is_good = np.ones(len(next(iter(packed.tensors.values()))), np.bool_)
    is_good[list(packed.bad)] = False
    return {name: rows[is_good] for name, rows in packed.tensors.items()}


def _parse_kind(document: Mapping[str, Any], first: Port, where: str) -> tuple[TaskType, Encoder]:
    """Return the task type and the encoder of a servable of any format."""
    task_type = parse_task_type(document)
    if "encoder" not in document:
        from mlscale.export.format1 import build_format1_encoder

        return task_type, build_format1_encoder(first.shape[1:], first.dtype, document["preprocessing"])
    return task_type, parse_encoder(document["encoder"], where=f"{where}: encoder")


def parse_task_type(document: Mapping[str, Any]) -> TaskType:
    """Return the task type of a servable's document of any format.

    Raises:
        KeyError: the document has none.
        MLScaleError: it is not installed.
    """
    # Format 1 has classifiers alone, and no encoder.
    if "encoder" not in document:
        return get_task_type("classification")
    name = document["task_type"]
    return TensorType() if name is None else get_task_type(str(name))


def _parse_port(entry: Mapping[str, Any]) -> Port:
    port = Port(str(entry["name"]), str(entry["dtype"]), tuple(int(size) for size in entry["shape"]))
    sizes = port.shape[1:]
    if port.dtype not in PORT_DTYPES or port.shape[:1] != (-1,) or any(size == 0 or size < -1 for size in sizes):
        raise ValueError(f"{port}")
    return port


def read_verified(folder: Path, name: str, digest: str, size: int, *, keep: bool) -> bytes:
    """Return the content of a file (empty unless `keep`) after checking its size and digest against servable.yaml.

    Raises:
        MLScaleError: it is outside of the folder, is absent, or has another digest.
    """
    path = folder / name  # an absolute name replaces the folder
    if not path.resolve().is_relative_to(folder.resolve()):  # links are followed
        raise MLScaleError(
            "a servable has files of its own folder only",
            where=f"{folder / DOCUMENT}: files.{name}",
            fix="mlscale export <its run>, which makes the servable again",
        )
    try:
        if path.stat().st_size != size:
            raise _build_altered_error(path, f"it has {path.stat().st_size:,} bytes, not {size:,}")
        with path.open("rb") as file:
            # The bytes that are returned are those that were digested: the file can't be replaced in between.
            if keep:
                content = file.read()
                actual_digest = hashlib.sha256(content).hexdigest()
            else:
                content, actual_digest = b"", hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _build_altered_error(path, error.strerror or str(error)) from error
    if actual_digest != digest:
        raise _build_altered_error(path, "its SHA-256 is another")
    return content


def _build_altered_error(path: Path, why: str) -> MLScaleError:
    return MLScaleError(
        "the servable is corrupt or altered",
        where=str(path),
        why=f"{why}: it is not what was exported",
        fix="export it again: mlscale export <run>",
    )


def cast_input(raw: NDArray[Any], port: Port) -> NDArray[Any]:
    """Return `raw` in the dtype and memory order of `port`.

    Raises:
        MLScaleError: another shape, or values that the dtype can't hold, such as pixels from 0 to 1 for a uint8 input.
    """
    raw = np.asarray(raw)
    if raw.ndim != len(port.shape) or raw.shape[1:] != port.shape[1:]:
        raise _build_shape_error(raw, port)
    if raw.dtype == port.dtype:
        return np.ascontiguousarray(raw)
    if raw.dtype.kind not in "buif":
        raise MLScaleError(
            f"the values are {raw.dtype}",
            where=port.name,
            why=f"the model takes {port.dtype}",
            fix=f"values.astype('{port.dtype}'), which are numbers",
        )
    # A cast wraps around or truncates without an error, so the result is compared with the original. float32 can't hold
    # every float64 exactly: numbers are rounded, but not to infinity.
    with np.errstate(invalid="ignore", over="ignore"):
        cast = raw.astype(port.dtype)
        is_held = np.isfinite(cast) == np.isfinite(raw) if port.dtype == "float32" else cast == raw
    if not is_held.all():
        raise MLScaleError(
            f"the values do not fit {port.dtype}",
            where=port.name,
            why=f"they run from {raw.min():.6g} to {raw.max():.6g}, and {_describe_misfit(port)}",
            fix="pixels.astype('uint8'), of pixels as they are decoded, 0 to 255: the model normalises them itself"
            if port.dtype == "uint8"
            else f"values.astype('{port.dtype}'), of values that it holds",
        )
    return np.ascontiguousarray(cast)


def _describe_misfit(port: Port) -> str:
    if port.dtype == "float32":
        return f"float32 ends at {np.finfo(np.float32).max:.6g}"
    return f"are not all whole numbers of {port.dtype}"


def _build_shape_error(raw: NDArray[Any], port: Port) -> MLScaleError:
    sizes = ", ".join(map(str, port.shape[1:]))
    wanted = f"(n, {sizes})"
    numbers = math.prod(size for size in port.shape[1:] if isinstance(size, int))
    fix = f"raw.reshape(-1, {sizes}), of values that come in this order"
    if not raw.size or raw.size % numbers:
        fix = f"send {numbers} values a sample, in the shape ({sizes})"
    # The two frequent mistakes get their own advice.
    if raw.shape == port.shape[1:]:
        fix = "raw[None]: one sample is a batch of one"
    elif raw.ndim == 4 and (raw.shape[3], *raw.shape[1:3]) == port.shape[1:]:
        fix = "raw.transpose(0, 3, 1, 2): channels come first"
    elif raw.ndim == 3 and (raw.shape[2], *raw.shape[:2]) == port.shape[1:]:
        fix = "raw.transpose(2, 0, 1)[None]: channels come first, and one sample is a batch of one"
    return MLScaleError(f"the batch is {raw.shape}", where=port.name, why=f"the model takes {wanted}", fix=fix)
