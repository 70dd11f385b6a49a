"""Samples as Python has them: paths, images, arrays, rows, data frames and texts, as raw samples of an encoder."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlscale.array_files import load_arrays
from mlscale.data.encoders.encoder import Encoder
from mlscale.errors import MLScaleError
from mlscale.export.engines.engine import Port
from mlscale.export.servable import cast_input
from mlscale.predict.input_items import choose_scored_column

if TYPE_CHECKING:
    from PIL import Image

_ORIENTATION = 0x0112  # the tag of Exif
_MOST_COLUMNS, _MOST_REASONS = 30, 3


@dataclass
class GivenSamples:
    """Raw samples, and what they are called.

    Attributes:
        samples: by the kind of encoder.
        names: of each: its path, or its place in what was given.
        bad: the reason of each that could not be read, by its number.
    """

    samples: list[Any] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)


def collect_samples(x: object, encoder: Encoder, trained_on: str | None = None) -> GivenSamples:
    """Return the samples of `x`, one or many.

    Args:
        x: a path, an image, an array of a batch, a row, a data frame, a text, or a list of such; by the encoder's kind.
        encoder: of the model.
        trained_on: the column of a table that the model was trained on; None where it is not known.

    Raises:
        MLScaleError: an array of another shape, or of values that the model does not take; a data frame in which the
            column of the samples is not clear.
    """
    given = GivenSamples()
    # All are read before the first is encoded: every problem is reported at once.
    for number, item in enumerate(_iterate_items(x, encoder, trained_on)):
        given.names.append(str(item) if _is_path(item, encoder) else f"x[{number}]")
        try:
            given.samples.append(_convert_item(item, encoder))
        except (OSError, ValueError) as error:
            # Something must stand in its place, so that later samples keep their numbers.
            given.samples.append(None)
            # The text of an OSError repeats the path, which the message names already.
            given.bad[number] = getattr(error, "strerror", None) or str(error)
    return given


def raise_bad_samples(given: GivenSamples, bad: Mapping[int, str], encoder: Encoder) -> None:
    """Raise an error if there are bad samples, which names the first of them.

    Raises:
        MLScaleError: there are some.
    """
    if not bad:
        return
    first = sorted(bad)[:_MOST_REASONS]
    total = len(given.samples)
    reasons = [f"{given.names[number]}: {bad[number]}" for number in first]
    if len(bad) > len(first):
        reasons.append(f"and {len(bad) - len(first)} more")
    raise MLScaleError(
        "the sample can't be predicted" if total == 1 else f"{len(bad)} of {total} samples can't be predicted",
        where=given.names[first[0]],
        why=bad[first[0]] if len(bad) == 1 else "; ".join(reasons),
        fix=describe_taken_samples(encoder),
    )


def describe_taken_samples(encoder: Encoder) -> str:
    """Return what `predict` takes, in one sentence."""
    if encoder.kind == "table":
        names = [str(column["name"]) for column in encoder.describe_raw_input()["columns"]]
        more = f" and {len(names) - _MOST_COLUMNS} more" if len(names) > _MOST_COLUMNS else ""
        return f"the model takes rows with the columns {', '.join(names[:_MOST_COLUMNS])}{more}"
    if encoder.kind in ("text", "document"):
        return "the model takes texts: a str, bytes, a pathlib.Path of a file, a list of them, or a data frame"
    what = "a path, the bytes of a file, a PIL image" if encoder.kind == "image" else "a path of a .npy file"
    if len(encoder.inputs) > 1:
        return f"the model takes mappings of {', '.join(f'{s.name!r}: {s.dtype} {s.shape}' for s in encoder.inputs)}"
    shape = ", ".join(map(str, ("n", *encoder.inputs[0].shape)))
    return f"the model takes {what}, a list of them, or an array ({shape}) of {encoder.inputs[0].dtype}"


def _iterate_items(x: object, encoder: Encoder, trained_on: str | None) -> Iterable[Any]:
    """Return the samples in `x`; what is not a collection is one sample."""
    # Before all else: a str and a mapping can be iterated, and a picture converted to an array.
    if isinstance(x, str | bytes | Path | Mapping) or _is_picture(x):
        return [x]
    if encoder.kind == "table":
        return list_rows(x)
    if encoder.kind != "tensor" and is_frame(x):
        return list_scored_values(x, trained_on)
    if encoder.kind in ("text", "document") or _holds_objects(x):
        values = list_column_values(x)
        if values is not None:
            return values
    elif hasattr(x, "__array__") and len(encoder.inputs) == 1:
        first = encoder.inputs[0]
        return list(cast_input(np.asarray(x), Port(first.name, first.dtype, (-1, *first.shape))))
    return x if isinstance(x, list | tuple | Iterator) else [x]


def _holds_objects(x: object) -> bool:
    """Return whether an array or a column holds paths, files or arrays, and no numbers of its own."""
    # A column of pyarrow's has a type of its own, which is not numpy's.
    return hasattr(x, "__array__") and np.asarray(x).dtype.kind in "OUST"


def _is_path(item: object, encoder: Encoder) -> bool:
    """Return whether an item names a file: a text itself is no path for a model of texts."""
    return isinstance(item, Path) or (isinstance(item, str) and encoder.kind in ("image", "tensor"))


def _is_picture(item: object) -> bool:
    # By name: PIL is imported where an image of it was given, and then it is imported already.
    return any(base.__module__ == "PIL.Image" for base in type(item).__mro__)


def _convert_item(item: object, encoder: Encoder) -> Any:
    """Return one item as a raw sample.

    Raises:
        OSError, ValueError: its file can't be read.
    """
    if isinstance(item, Path | str) and _is_path(item, encoder):
        if encoder.kind == "table":
            raise ValueError("it is a path, and the model takes rows; mlscale predict reads tables")
        if encoder.kind == "tensor":
            return load_arrays(item)
        return Path(item).expanduser().read_bytes()
    if _is_picture(item):
        if encoder.kind != "image":
            raise ValueError("it is an image")
        picture: Any = item
        return _encode_picture(picture)
    # A tensor of torch, jax and the like.
    is_array = hasattr(item, "__array__") and not isinstance(item, np.generic)
    return np.asarray(item) if is_array and encoder.kind in ("image", "tensor") else item


def _encode_picture(picture: Image.Image) -> bytes:
    """Return the pixels of a PIL image as a PNG, which the one decoder of images then reads: with its orientation."""
    from PIL import Image

    # Only the orientation: other entries of a camera's may be ones that Pillow can't write.
    exif, file = Image.Exif(), io.BytesIO()
    if (orientation := picture.getexif().get(_ORIENTATION)) is not None:
        exif[_ORIENTATION] = orientation
    # PNG has no other modes: CMYK and YCbCr of a JPEG are converted as the decoder would.
    if picture.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        picture = picture.convert("RGB")
    # The file is read again at once, so that fast is better than small.
    picture.save(file, "PNG", compress_level=1, exif=exif)
    return file.getvalue()


_MOST_NAMES = 20
_CONVERTERS = ("to_pylist", "to_dicts", "to_dict")


def is_frame(x: object) -> bool:
    """Return whether `x` is a data frame, and not one of its columns."""
    return hasattr(x, "columns") and any(hasattr(x, method) for method in _CONVERTERS)


def list_column_values(x: object) -> list[Any] | None:
    """Return the values of a column of a data frame, or of an array, as Python has them; None of anything else."""
    # Any gives Python values: numpy would make arrays of them.
    for method in ("to_pylist", "to_list", "tolist"):
        if hasattr(x, method) and not hasattr(x, "columns"):
            listed = getattr(x, method)()
            return listed if isinstance(listed, list) else [listed]
    return None


def list_rows(x: object) -> Iterable[Any]:
    """Return the rows of a data frame; a list as it is; of anything else the only row, `x` itself."""
    for method in ("to_pylist", "to_dicts"):
        if hasattr(x, method):
            rows: list[Any] = getattr(x, method)()
            return rows
    if hasattr(x, "to_dict") and hasattr(x, "notna"):
        frame: Any = x
        # As objects, since only those can be None: a missing value of pandas is one of several of its own.
        plain = frame.astype(object).where(frame.notna(), None)
        return plain.to_dict("records") if hasattr(x, "columns") else [plain.to_dict()]
    return x if isinstance(x, list | tuple | Iterator) else [x]


def list_scored_values(frame: object, trained_on: str | None) -> list[Any]:
    """Return the values of the column that a model of images or texts scores, None where one is missing.

    Args:
        frame: a data frame.
        trained_on: the column of training, which is scored where the frame has it.

    Raises:
        MLScaleError: the column is not clear, or not found.
    """
    rows = list(list_rows(frame))
    if not rows:
        return []
    # A frame without a header has numbers for names.
    names = {str(name): name for name in rows[0]}
    if trained_on in names:
        return [row[names[trained_on]] for row in rows]
    # By the values, since each library has types of its own: of pandas a column of texts is one of objects.
    kinds = {text: {type(row[name]) for row in rows if row[name] is not None} for text, name in names.items()}
    of_bytes = [text for text, types in kinds.items() if types == {bytes}]
    texts = [text for text, types in kinds.items() if str in types and types <= {str, bytes}]
    chosen = choose_scored_column(of_bytes, texts, where="x", fix="predict(x[{!r}])")
    if chosen is None:
        columns = texts or list(names)
        known = ", ".join(map(repr, columns[:_MOST_NAMES])) + (", …" if len(columns) > _MOST_NAMES else "")
        raise MLScaleError(
            "it is not clear which column is scored" if texts else "the data frame has no column of texts or files",
            where="x",
            why=f"its columns{' of texts' if texts else ''} are: {known}",
            fix=f"predict(x[{names[columns[0]]!r}])" if texts else "give a data frame with such a column",
        )
    return [row[names[chosen]] for row in rows]
