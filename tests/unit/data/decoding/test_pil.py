"""Pillow is asked for a list of formats alone, and its settings of the process have no effect."""

from __future__ import annotations

import io
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile

import mlscale
from mlscale.data.decoding.image_decoder import decode_image
from mlscale.data.decoding.pil import open_image
from tests import awkward

EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n"
    b"newpath 0 0 moveto 20 20 lineto stroke\nshowpage\n%%EOF\n"
)


def test_only_one_function_opens_images() -> None:
    package = Path(mlscale.__file__).parent
    calls = re.compile(r"\bImage\.open\b|\bPIL\.open\b|from PIL\.Image import|ImageFile\.Parser|\bread_file\(")
    found = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if calls.search(path.read_text())}
    # A mask that was encoded in the same process is read back there: no file of a user's.
    assert found == {"data/decoding/pil.py", "task_types/segmentation_type.py"}


def test_ghostscript_is_never_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = tmp_path / "started"
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {started}\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # Pillow looks for it once
    with pytest.raises(Exception, match="gs"), Image.open(io.BytesIO(EPS)) as image:  # that it would be
        image.load()
    assert started.exists()
    started.unlink()
    with pytest.raises(ValueError, match="not an image of a known format"):
        decode_image(EPS, None)
    assert not started.exists()


@pytest.mark.parametrize("name", [name for name in awkward.CORRUPT if name.startswith(("cut", "holed"))])
def test_forgiving_settings_of_the_process_have_no_effect(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises((ValueError, OSError, UserWarning)):
        decode_image(awkward.CORRUPT[name], None)
    assert ImageFile.LOAD_TRUNCATED_IMAGES
    assert Image.MAX_IMAGE_PIXELS is None


def test_settings_are_strict_while_any_thread_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with open_image(awkward.INTACT["bmp"]):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=stay)
    thread.start()
    assert inside.wait(10)
    with open_image(awkward.INTACT["bmp"]):
        assert not ImageFile.LOAD_TRUNCATED_IMAGES
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    leave.set()
    thread.join()
    assert ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "PNG"])
@pytest.mark.parametrize("is_grey", [True, False])
def test_a_grey_model_takes_grey_pixels_of_formats_without_grey(kind: str, is_grey: bool) -> None:
    values = np.random.default_rng(0).integers(0, 8, (9, 7, 1 if is_grey else 3), np.uint8) * 30
    image = Image.fromarray(np.broadcast_to(values, (9, 7, 3)).copy())
    file = io.BytesIO()
    image.save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    # A PNG has grey of its own: with three channels it is of another kind than the data, whatever they hold.
    if is_grey and kind != "PNG":
        assert np.array_equal(decode_image(file.getvalue(), None, 1)[0], values[..., 0])
        return
    with pytest.raises(ValueError, match="it has colours, and the training data is grey"):
        decode_image(file.getvalue(), None, 1)
