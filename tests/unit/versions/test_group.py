"""The group `registry` of a configuration: what it builds, and that it changes nothing of what a run computes."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mlscale.assembly.build import build
from mlscale.assembly.ready import compose_from_overrides
from mlscale.runs.identity import compute_config_hash
from mlscale.versions import LocalRegistry, WandbRegistry


def test_what_is_built(folder: Path) -> None:
    local = build(compose_from_overrides("train", []).registry, "registry")
    assert type(local) is LocalRegistry
    assert local.root == folder / "registry"
    words = ["registry=wandb", "registry.root=elsewhere", "registry.project=p", "registry.entity=team"]
    mirrored = build(compose_from_overrides("train", words).registry, "registry")
    assert isinstance(mirrored, WandbRegistry)
    assert mirrored.root == folder / "elsewhere"
    place = mirrored.outbox.start_mirroring("p", "team")
    assert (place.project, place.entity) == ("p", "team")


@pytest.mark.parametrize("words", [["registry=wandb"], ["registry.root=/elsewhere"]])
def test_it_is_not_part_of_what_is_computed(folder: Path, words: list[str]) -> None:
    plain, other = (OmegaConf.to_yaml(compose_from_overrides("train", each)) for each in ([], words))
    assert plain != other
    assert compute_config_hash(plain) == compute_config_hash(other)
