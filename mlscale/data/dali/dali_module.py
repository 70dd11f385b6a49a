"""DALI's backend as Lightning's data module: what `data._target_` names."""

from __future__ import annotations

from mlscale.data.dali.dali_backend import DaliBackend
from mlscale.data.images.image_modules import ImageData


class Dali(DaliBackend, ImageData):
    """Labelled images in tar shards, decoded and augmented by DALI; see `DaliBackend`."""
