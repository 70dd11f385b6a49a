"""Training, `predict` and `serve` have one decoder: the same bytes give the same pixels, or the same rejection."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.data.decoding.fast_decoder import DECODE_VERSION
from mlscale.data.encoders.encoder import INPUT
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.images.decoded_cache import decode_from_source
from mlscale.data.images.image_folder import FolderSource
from mlscale.data.order.bad_samples import BadSample
from mlscale.export.format1 import build_format1_encoder
from mlscale.export.servable import Servable, load
from mlscale.predict.inputs import open_folder
from mlscale.predict.score_parts import prepare_sample
from mlscale.serve.http.request_error import Refused
from mlscale.serve.protocol import image_input as images
from mlscale.serve.served_model import ServedModel
from tests import awkward
from tests.serving import STORED

SIDE, LIMIT = 24, 100_000
FILES = {
    **awkward.INTACT,
    **awkward.TURNED,
    **{name: deviate(awkward.RESTARTS) for name, deviate in awkward.DEVIATIONS.items()},
    **awkward.CORRUPT,
}
Verdict = NDArray[Any] | str


def trained_on(folder: Path, name: str, channels: int) -> Verdict:
    """What training sees of a file."""
    source = FolderSource(folder, [("a", name)])
    try:
        return decode_from_source(source, 0, (SIDE, SIDE), channels, max_pixels=LIMIT)
    except BadSample as bad:
        return bad.why


def predicted(folder: Path, channels: int) -> Verdict:
    """What `predict` sees of the only file of a folder."""
    (item,) = open_folder(folder).read_items(range(1))
    try:
        encoder = ImageEncoder((channels, SIDE, SIDE), "uint8", True, LIMIT, (), (), DECODE_VERSION)
        return encoder.encode_sample(prepare_sample(item))[INPUT]
    except Exception as error:
        return str(error)


def served(content: bytes, channels: int) -> Verdict:
    """What a server sees of a request."""
    try:
        return np.asarray(images.decode_image_sample(model(channels), content)[0])
    except Refused as refused:
        return refused.message


@cache
def _stored() -> Servable:
    return load(STORED)


def model(channels: int) -> ServedModel:
    """A model of images that computes nothing."""
    preprocessing = {
        "channels": "grey" if channels == 1 else "RGB",
        "layout": "NCHW",
        "resize": {"short_side": SIDE, "crop": "centre"},
        "max_pixels": LIMIT,
    }
    stored = _stored()
    encoder = build_format1_encoder((channels, SIDE, SIDE), "uint8", preprocessing)
    servable = replace(stored, document={**stored.document, "preprocessing": preprocessing}, encoder=encoder)
    return ServedModel(servable, "m", "m:v1", 0.0, 0.0, 8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", FILES)
def test_one_verdict(name: str, channels: int, tmp_path: Path) -> None:
    content = FILES[name]
    (tmp_path / "it.jpg").write_bytes(content)
    of_training, of_predict = trained_on(tmp_path, "it.jpg", channels), predicted(tmp_path, channels)
    of_server = served(content, channels)
    if isinstance(of_training, str):
        assert of_predict == " ".join(of_training.split())  # in one line, as it stands in a table
        assert isinstance(of_server, str)
        assert " ".join(of_training.split())[:200] in of_server
    else:
        assert np.array_equal(of_predict, of_training)
        assert np.array_equal(of_server, of_training)
    if not (isinstance(of_training, str) and of_training.startswith("it has colours")):
        assert isinstance(of_training, str) == (name in awkward.CORRUPT)


def test_a_server_without_torch_sees_the_same(tmp_path: Path) -> None:
    """In a process of its own, where torch is never loaded: its PNG decoder and its resize are others."""
    folder = tmp_path / "files"
    folder.mkdir()
    for number, content in enumerate(FILES.values()):
        (folder / f"{number:04}").write_bytes(content)
    program = (
        "import hashlib, json, sys, warnings; from pathlib import Path\n"
        "from mlscale.data.decoding.image_decoder import decode_image\n"
        "import mlscale.serve.protocol.image_input\n"
        "warnings.simplefilter('error')\n"
        "verdicts = []\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: pixels = decode_image(path.read_bytes(), (24, 24), 3, max_pixels=100_000)\n"
        "    except Exception as error: verdicts.append(str(error))\n"
        "    else: verdicts.append(hashlib.sha256(pixels.tobytes()).hexdigest())\n"
        "assert not {'torch', 'torchvision', 'webdataset'} & set(sys.modules)\n"
        "print(json.dumps(verdicts))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], check=True, capture_output=True, text=True)
    for (name, content), verdict in zip(FILES.items(), json.loads(done.stdout), strict=True):
        here = _digest(content)
        assert here == verdict, name


def _digest(content: bytes) -> str:
    from mlscale.data.decoding.image_decoder import decode_image

    try:
        pixels = decode_image(content, (SIDE, SIDE), 3, max_pixels=LIMIT)
    except Exception as error:
        return str(error)
    return hashlib.sha256(pixels.tobytes()).hexdigest()
