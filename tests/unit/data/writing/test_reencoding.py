"""Images that are re-encoded have the pixels of the project's own decoder and resize, upright; masks keep classes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from mlscale import contracts
from mlscale.cli import main
from mlscale.data import ImageFolder, ImageTable, WebDataset
from mlscale.data.decoding.fast_decoder import open_picture
from mlscale.data.decoding.image_decoder import decode_image
from mlscale.data.decoding.resample import Box
from mlscale.data.images.image_modules import ImageData
from mlscale.data.images.masks import decode_mask, resize_nearest
from mlscale.data.writing.reencoding import Reencoding, parse_reencoding
from mlscale.data.writing.write_shards import Part, WrittenShards, write_shards
from mlscale.errors import MLScaleError
from tests.unit.data.conftest import mask, picture, write_masked, write_tar

PNG = Reencoding(8, "png", None)


def smooth(number: int, size: tuple[int, int], kind: str = "JPEG", orientation: int = 1, mode: str = "RGB") -> bytes:
    """A picture that JPEG keeps well, (width, height)."""
    rows, columns = np.mgrid[0 : size[1], 0 : size[0]]
    pixels = np.stack([rows * 2 + number, columns * 2, rows + columns], 2).clip(0, 255).astype(np.uint8)
    image, stream, exif = Image.fromarray(pixels).convert(mode), io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    image.save(stream, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    return stream.getvalue()


def write(data: ImageData, folder: Path, reencoding: Reencoding | None, **changes: Any) -> WrittenShards:
    settings: dict[str, Any] = {"container": "tar", "shard_bytes": 4000, "seed": 3, "licence": None, "part": Part()}
    progress: Any = changes.pop("progress", lambda samples: None)
    return write_shards(data, folder, **{**settings, **changes}, reencoding=reencoding, progress=progress)


def read(content: bytes) -> np.ndarray[Any, Any]:
    return decode_image(content, None)


@pytest.mark.parametrize(
    ("size", "stored", "written"),
    [(8, (40, 20), (16, 8)), (8, (20, 40), (8, 16)), (8, (8, 30), (8, 30)), (8, (5, 7), (5, 7)), (None, (9, 7), (9, 7)),
     (10, (33, 21), (16, 10))],
)  # fmt: skip
def test_the_short_side_is_resized_once(size: int | None, stored: tuple[int, int], written: tuple[int, int]) -> None:
    content = smooth(3, stored)
    image = Reencoding(size, "png", None).encode_image(content, 10**6)
    assert image.size == written[::-1]
    assert image.whole == stored[::-1]
    # The same as an image that is brought to this size when it is loaded.
    expected = decode_image(content, image.size, choose=lambda height, width, _: Box(0, 0, height, width))
    assert np.array_equal(read(image.content), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int) -> None:
    content = smooth(3, (24, 16), orientation=orientation)
    image = Reencoding(None, "png", None).encode_image(content, 10**6)
    assert open_picture(image.content).orientation == 1
    assert np.array_equal(read(image.content), read(content))
    # Of the same format, too: other readers do not turn it.
    same = Reencoding(None, "jpeg", 95).encode_image(content, 10**6)
    assert (same.content == content) == (orientation == 1)
    assert open_picture(same.content).orientation == 1
    assert read(same.content).shape == read(content).shape


@pytest.mark.parametrize(("kind", "quality", "most"), [("jpeg", 90, 4), ("webp", 90, 6), ("png", None, 0)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_format(kind: str, quality: int | None, most: int, mode: str) -> None:
    content = smooth(3, (32, 24), "BMP", mode=mode)
    image = Reencoding(None, kind, quality).encode_image(content, 10**6)
    assert image.extension == {"jpeg": "jpg"}.get(kind, kind)
    with Image.open(io.BytesIO(image.content)) as opened:
        assert opened.format == kind.upper()
    difference = np.abs(read(image.content).astype(int) - read(content).astype(int))
    assert difference.mean() <= most
    assert image.content == Reencoding(None, kind, quality).encode_image(content, 10**6).content


def test_what_has_the_format_and_the_size_stays(tmp_path: Path) -> None:
    content = smooth(3, (32, 24))
    assert Reencoding(24, "jpeg", 50).encode_image(content, 10**6).content == content
    assert Reencoding(23, "jpeg", 50).encode_image(content, 10**6).content != content
    assert Reencoding(24, "png", None).encode_image(content, 10**6).content != content


def test_a_corrupt_image_is_not_copied(tmp_path: Path) -> None:
    for number in range(20):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(smooth(number, (32, 24)))
    path.write_bytes(path.read_bytes()[:-40])
    data = ImageFolder(tmp_path / "photos", image_size=None, on_bad_sample="skip")
    with pytest.raises(MLScaleError, match=r"the sample b/19.jpg cannot be re-encoded"):
        write(data, tmp_path / "out", Reencoding(None, "jpeg", 90))


@pytest.mark.parametrize("container", ["tar", "tfrecord"])
def test_masks_follow_their_images_without_loss(tmp_path: Path, container: str) -> None:
    write_masked(tmp_path / "t", 24, size=(20, 14))
    data = WebDataset(tmp_path / "t", tmp_path / "t", image_key="png", labels="mask", image_size=12, batch_size=4)
    written = write(data, tmp_path / container, PNG, container=container)
    assert written.is_complete
    if container == "tfrecord":
        return
    out = WebDataset(tmp_path / "tar/train", tmp_path / "tar/val", labels="mask", image_key="png", image_size=8)
    held = out.get_decoded_split("train").source
    found: list[bytes] = []
    for number in range(len(held)):
        image, (_, label) = read(held.read_image(number)[1]), held.read_label(number)  # type: ignore[attr-defined]
        assert image.shape == (1, 8, 11)
        found.append(decode_mask(label, "png").tobytes())
    stored = [decode_mask(mask(n, size=(20, 14)), "png") for n in range(24)]
    assert sorted(found) == sorted(resize_nearest(one, Box(0, 0, 14, 20), (8, 11)).tobytes() for one in stored)


def test_a_mask_of_another_size_than_its_image(tmp_path: Path) -> None:
    members = [
        (f"{n}.{kind}", content)
        for n in range(6)
        for kind, content in (("png", picture(n, size=(9, 9))), ("mask.png", mask(n, size=(8, 9))))
    ]
    path = write_tar(tmp_path / "a.tar", members)
    data = WebDataset(path, path, labels="mask", image_key="png", image_size=8, batch_size=2)
    with pytest.raises(MLScaleError, match="has a mask that cannot be re-encoded") as caught:
        write(data, tmp_path / "out", PNG)
    assert "8×9 pixels, and its image 9×9" in caught.value.why


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["image,kind"]
    for number in range(40):
        (tmp_path / f"{number}.jpg").write_bytes(smooth(number, (60, 40), orientation=6))
        rows.append(f"{number}.jpg,{'ab'[number % 2]}")
    (tmp_path / "photos.csv").write_text("\n".join(rows))
    source = ["data=image_table", f"data.train={tmp_path / 'photos.csv'}", "data.target=kind", "data.image_size=16"]
    words = [*source, f"to={tmp_path / 'out'}", "reencode.size=20", "reencode.quality=80"]
    assert main(["prepare", *words]) == 0
    document = json.loads((tmp_path / "out/dataset.json").read_text())
    jsonschema.validate(document, contracts.load_schema("dataset"))
    assert {**document["reencoding"], "encoder": ""} == {"size": 20, "format": "jpeg", "quality": 80, "encoder": ""}
    assert document["reencoding"]["encoder"].startswith("simplejpeg ")
    data = WebDataset(tmp_path / "out/train", tmp_path / "out/val", image_size=None)
    assert data.facts().sample == (3, 30, 20)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.tar")}
    # Another setting is another data set; the same one has nothing to do.
    assert main(["prepare", *words[:-1]]) == 2
    assert "another reencoding" in capsys.readouterr().err
    assert main(["prepare", *words]) == 0
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.tar")} == before
    assert main(["prepare", *source, "reencode.size=20"]) == 2
    assert "reencode has no effect without to=" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "where", "fix"),
    [
        ({"quality": 80}, "reencode.quality", "reencode.format=jpeg, or reencode.size=256"),
        ({"format": "gif"}, "reencode.format", "reencode.format=jpeg"),
        ({"format": "png", "quality": 80}, "reencode.quality", "reencode.quality=null, or reencode.format=jpeg"),
        ({"size": 0}, "reencode.size", "reencode.size=256"),
        ({"size": True}, "reencode.size", "reencode.size=256"),
        ({"format": "webp", "quality": 101}, "reencode.quality", "reencode.quality=90"),
    ],
)
def test_settings_that_can_not_be(settings: dict[str, Any], where: str, fix: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        parse_reencoding({"size": None, "format": None, "quality": None, **settings})
    assert (caught.value.where, caught.value.fix) == (where, fix)


def test_progress_counts_every_sample_once(tmp_path: Path) -> None:
    rows = ["image,kind"]
    for number in range(30):
        (tmp_path / f"{number}.png").write_bytes(picture(number, size=(12, 9)))
        rows.append(f"{number}.png,{'ab'[number % 2]}")
    (tmp_path / "photos.csv").write_text("\n".join(rows))
    data = ImageTable(tmp_path / "photos.csv", target="kind", image_size=8)
    done: list[int] = []
    write(data, tmp_path / "out", PNG, progress=done.append)
    assert sum(done) == 30
    done.clear()
    next((tmp_path / "out/train").glob("*.tar")).unlink()
    write(data, tmp_path / "out", PNG, progress=done.append)
    assert sum(done) == 30
