"""A servable that encodes samples otherwise than training: the place that differs."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import INPUT, EncodedSamples
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.data.text.text_files import TextFiles
from mlscale.export.encoder_parity import EncoderComparison, EncoderDifference
from mlscale.export.measure_export import ExportMeasurement
from mlscale.export.parity import Parity
from mlscale.export.validation_samples import SampleBatch
from scripts.bench_encoder_faults import CLEAN, FAULTS, Make, compare
from scripts.encoder_faults.altered_servable import Plant, export_encoder


@pytest.mark.parametrize(("name", "make", "plant"), FAULTS, ids=[name for name, _, _ in FAULTS])
def test_a_planted_fault_is_named(name: str, make: Make, plant: Plant, tmp_path: Path) -> None:
    draw = random.Random(5)
    data = make(draw, tmp_path)
    fault = plant(draw, data.encoder(), export_encoder(data.encoder()))
    found = compare(data, fault.stored, fault.content)
    assert found is not None
    assert any(place in found.position for place in fault.places), found
    assert found.in_graph == fault.what.startswith("graph")
    assert found.key


@pytest.mark.parametrize("make", CLEAN)
def test_none_is_named_where_all_is_equal(make: Make, tmp_path: Path) -> None:
    data = make(random.Random(6), tmp_path)
    assert compare(data, data.encoder(), export_encoder(data.encoder())) is None


class Shifted(DocumentEncoder):
    """Adds one to each byte."""

    def encode_samples(self, raw: Sequence[str | bytes]) -> EncodedSamples:
        encoded = super().encode_samples(raw)
        return encoded._replace(tensors={**encoded.tensors, INPUT: encoded.tensors[INPUT] + 1})


def test_documents_are_compared_by_the_pieces_that_blocks_hold(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text("naïve 🙂 text " * (number + 2))
    data = TextFiles(str(tmp_path / "*.txt"), val=str(tmp_path / "*.txt"), length=16)
    data.prepare_data()
    data.setup("validate")
    assert compare(data, data.encoder(), export_encoder(data.encoder())) is None
    found = compare(data, Shifted(16), export_encoder(data.encoder()))
    assert found is not None
    assert found.position.startswith("token ")
    assert not found.in_graph


def test_tensors_without_a_structure_differ_at_a_value() -> None:
    encoder = TensorEncoder.from_shape((3,), "float32")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    samples = [x[0], x[1] + np.array([0, 0, 0.5], np.float32)]
    batch = SampleBatch(samples, {INPUT: x}, torch.from_numpy(x), np.zeros(2))
    comparison = EncoderComparison(encoder, b"")
    comparison.add_batch(batch, batch.pack(encoder))
    assert str(comparison.find_difference()) == ("the servable encodes value [2] of sample 2 as 5.5, and training as 5")


def test_it_is_the_first_problem_of_an_export(measured: ExportMeasurement) -> None:
    assert measured.parity.encoder is None
    found = EncoderDifference("the column 'mm'", "a.csv:3", "1", "10", in_graph=True)
    problem, _ = Parity(encoder=found, max_abs_error=1.0).find_problems(tolerance=1e-4, min_agreement=0.9)
    assert problem == "the graph encodes the column 'mm' of a.csv:3 as 10, and training as 1"
    assert Parity(encoder=found).as_dict()["encoder_difference"]["position"] == "the column 'mm'"
