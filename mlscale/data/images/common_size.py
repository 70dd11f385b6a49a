"""A size for images of several sizes, for commands that look at them and train on none."""

from __future__ import annotations

from mlscale.data.images.labelled_images import ImageBackend
from mlscale.data.images.sample_probe import DifferentSizesError
from mlscale.data.shards.system_files import report_once


def adopt_common_size(data: object) -> None:
    """Let images of several sizes be measured at the one that an error would suggest, and report it.

    Their mean and deviation need a size; their bytes, labels and order don't depend on it.
    """
    if not isinstance(data, ImageBackend) or data.image_size is not None:
        return
    try:
        data.facts()
    except DifferentSizesError as error:
        data.image_size = error.common_size
        report_once(f"data      {error.why}: mean and deviation are those at data.image_size={data.image_size}")
