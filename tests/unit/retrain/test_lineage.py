"""Where a challenger starts: the champion alone."""

from pathlib import Path

import pytest

from mlscale.commands.retrain.champion import require_champion
from mlscale.errors import MLScaleError
from mlscale.versions import LocalRegistry
from mlscale.versions.from_run import publish_run
from tests.unit.versions.test_from_run import trained


def test_only_the_champion_is_replaced(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path / "registry")
    first = publish_run(registry, trained(tmp_path, "best")).version
    with pytest.raises(MLScaleError, match="resnet:v1 is not the champion of resnet") as caught:
        require_champion(registry, first)
    assert caught.value.why == "there is none yet"
    assert caught.value.fix == "mlscale versions promote resnet:v1"

    second = publish_run(registry, trained(tmp_path, "best", weight=2.0), aliases=("champion",)).version
    assert require_champion(registry, second) is second
    with pytest.raises(MLScaleError, match="resnet:v1 is not the champion") as caught:
        require_champion(registry, first)
    assert caught.value.why == "that is resnet:v2"
    assert caught.value.fix == "mlscale retrain resnet@champion"
