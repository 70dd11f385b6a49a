"""Plant faults into servables' encoders, and see whether `export` names the place.

    python -m scripts.bench_encoder_faults --seed 1

Twelve faults of different classes in the encoder's document, in its code, or in its part of the graph, in data that
the seed draws; then twenty clean exports of other such data, which must give none. Every comparison is the one that
`mlscale export` makes: training's data module against the servable's encoder, on raw validation samples.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from mlscale.data.data_module import OrderedData
from mlscale.data.encoders.encoder import Encoder
from mlscale.export.encoder_parity import EncoderComparison, EncoderDifference
from mlscale.export.validation_samples import iterate_validation_batches
from scripts.encoder_faults.altered_servable import Plant, export_encoder
from scripts.encoder_faults.image_faults import (
    plant_channel_order,
    plant_crop,
    plant_normalisation,
    plant_resize_filter,
)
from scripts.encoder_faults.sample_data import make_images, make_table, make_texts
from scripts.encoder_faults.table_faults import (
    plant_category_order,
    plant_missing_value,
    plant_other_column,
    plant_statistics,
    plant_unit,
)
from scripts.encoder_faults.text_faults import plant_characters, plant_length, plant_offset

CLEAN = (make_table, make_images, make_texts)


def main() -> None:
    """Plant the faults, print a row for each, and the number of those that were named right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--clean", type=int, default=20)
    options = parser.parse_args()
    draw, right = random.Random(options.seed), 0
    for name, make, plant in FAULTS:
        data = _make(make, draw)
        # Grey images have no order of channels: nothing would be planted.
        while plant is plant_channel_order and data.encoder().inputs[0].shape[0] == 1:
            data = _make(make, draw)
        encoder = data.encoder()
        fault = plant(draw, encoder, export_encoder(encoder))
        found = compare(data, fault.stored, fault.content)
        is_right = found is not None and any(place in found.position for place in fault.places)
        right += is_right
        print(
            f"{'right' if is_right else 'WRONG':5}  {name:22} {fault.what}\n       {found or 'nothing found'}",
            flush=True,
        )
    named = 0
    for number in range(options.clean):
        data = _make(CLEAN[number % len(CLEAN)], draw)
        found = compare(data, data.encoder(), export_encoder(data.encoder()))
        if found is not None:
            named += 1
            print(f"WRONG  clean export {number}: {found}", flush=True)
    print(f"seed {options.seed}: {right} of {len(FAULTS)} faults named right; {named} of {options.clean} clean named")


def _make(make: Callable[[random.Random, Path], OrderedData], draw: random.Random) -> OrderedData:
    # The folder is read by the data module as long as the process runs.
    return make(draw, Path(tempfile.mkdtemp(prefix="encoder-faults-", dir=_FOLDER.name)))


def compare(data: OrderedData, stored: Encoder, content: bytes) -> EncoderDifference | None:
    """Return the difference between training's encoding and the servable's."""
    comparison = EncoderComparison(data.encoder(), content, stored)
    for batch in iterate_validation_batches(data):
        comparison.add_batch(batch, batch.pack(data.encoder()))
    return comparison.find_difference()


def make_colours(draw: random.Random, folder: Path) -> OrderedData:
    """Return images with three channels."""
    for attempt in range(100):
        place = folder / str(attempt)
        if (data := make_images(draw, place)).encoder().shape[0] == 3:
            return data
    raise AssertionError("no images in colour")


Make = Callable[[random.Random, Path], OrderedData]
FAULTS: tuple[tuple[str, Make, Plant], ...] = (
    ("category order", make_table, plant_category_order),
    ("missing value", make_table, plant_missing_value),
    ("mean or deviation", make_table, plant_statistics),
    ("unit or scale", make_table, plant_unit),
    ("columns swapped", make_table, plant_other_column),
    ("channel order", make_colours, plant_channel_order),
    ("normalisation", make_images, plant_normalisation),
    ("resize filter", make_images, plant_resize_filter),
    ("crop or orientation", make_images, plant_crop),
    ("byte or character", make_texts, plant_characters),
    ("offset or padding", make_texts, plant_offset),
    ("cut at a length", make_texts, plant_length),
)
_FOLDER = tempfile.TemporaryDirectory(prefix="encoder-faults-")


if __name__ == "__main__":
    main()
