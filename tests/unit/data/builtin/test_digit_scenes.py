"""Scenes of digits: the same on every machine, and what their masks and lists say is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mlscale.data import Digits, DigitsScenes


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    DigitsScenes(root=folder).prepare_data()
    return folder


def test_masks_and_lists_agree(root: Path) -> None:
    masks, lists = (DigitsScenes(root, labels, batch_size=100) for labels in ("mask", "several"))
    facts = masks.facts()
    assert (facts.sample, facts.num_classes, facts.train_samples, facts.val_samples) == ((1, 40, 40), 11, 2000, 500)
    assert facts.class_names == ("background", *"0123456789")
    assert lists.facts().num_classes == 10
    assert facts.version == lists.facts().version == "25681808bdc6e57e", "the same shards on every machine"
    counts = []
    for a, b in zip(masks.val_dataloader(), lists.val_dataloader(), strict=True):
        for x, mask, present in zip(a["x"], a["y"], b["y"], strict=True):
            found = [number for number in range(10) if (mask == number + 1).any()]
            assert found == torch.nonzero(present)[:, 0].tolist()
            counts.append(len(found))
            pixels = x[0] * facts.std[0] + facts.mean[0]
            assert (pixels[mask == 0].abs() < 0.01).all()
            assert (pixels[(mask > 0) & (mask < 255)] > 60).all()
    assert set(counts) == {1, 2, 3, 4}


def test_each_digit_is_one_of_its_side(root: Path, tmp_path: Path) -> None:
    """Every row of a scene that holds a digit alone is found in the digits of the same split."""
    digits = Digits(root=tmp_path)
    digits.prepare_data()
    digits.facts()
    scenes = DigitsScenes(root=root)
    scenes.facts()
    for split, other in (("train", "val"), ("val", "train")):
        known = {name: {image.tobytes() for image in _cut(digits, name)} for name in (split, other)}
        single = _alone(scenes, split, 60)
        assert len(single) > 5
        assert all(image.tobytes() in known[split] and image.tobytes() not in known[other] for image in single)


def _cut(digits: Digits, split: str) -> list[np.ndarray]:
    decoded = digits.get_decoded_split(split)
    return [_trimmed(decoded.get_sample(i)[0]) for i in range(len(decoded))]


def _alone(scenes: DigitsScenes, split: str, count: int) -> list[np.ndarray]:
    """The digits of the scenes that have a single one as large as it was."""
    decoded, found = scenes.get_decoded_split(split), []
    for i in range(count):
        cut = _trimmed(decoded.get_sample(i)[0])
        if max(cut.shape) <= 8:
            found.append(cut)
    return found


def _trimmed(image: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(image.any(1))[0], np.nonzero(image.any(0))[0]
    return np.ascontiguousarray(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
