"""The names of image files: one list for folders, shards, `predict` and `loadtest`, of the formats that are decoded."""

from __future__ import annotations

IMAGE_EXTENSIONS = frozenset(
    {
        *("jpg", "jpeg", "jpe", "jfif", "mpo"),
        *("png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff"),
        *("ppm", "pgm", "pbm", "pnm"),
        *("jp2", "j2k", "j2c", "jpc", "jpf", "jpx"),
    }
)
"""In lower case, without the dot, of every format in `mlscale.data.decoding.pil.FORMATS`."""


def is_image_file(name: str) -> bool:
    """Return True if a file's name, or a member's extension such as `left.jpg`, ends as an image's does."""
    return name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS
