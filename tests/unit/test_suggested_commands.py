"""Commands that messages suggest mean the runs of the command that prints them."""

import pytest

from mlscale.suggested_commands import add_typed_folder, use_typed_words


@pytest.mark.parametrize(
    ("text", "completed"),
    [
        ("mlscale runs resume last, once", "mlscale runs resume runs_dir=a last, once"),
        ("mlscale runs show 1shr\nmlscale like=1", "mlscale runs show runs_dir=a 1shr\nmlscale runs_dir=a like=1"),
        ("mlscale evaluate last checkpoint=best", "mlscale evaluate last runs_dir=a checkpoint=best"),
        ("mlscale export 1shr9nyz23xg, which", "mlscale export 1shr9nyz23xg runs_dir=a, which"),
        ("mlscale runs gc runs_dir=other", "mlscale runs gc runs_dir=other"),
        ("trainer.devices=1, or mlscale data inspect", "trainer.devices=1, or mlscale data inspect"),
    ],
)  # fmt: skip
def test_the_typed_folder_is_named(text: str, completed: str) -> None:
    assert add_typed_folder(text) == text, "nothing was typed"
    with use_typed_words(["train", "+recipe=resnet", "runs_dir=a"]):
        assert add_typed_folder(text) == completed
