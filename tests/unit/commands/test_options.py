"""Looking verbs answer mistakes as working verbs do: one message, what to type, no usage dump."""

from collections.abc import Callable, Sequence

import pytest

from mlscale.commands.config import entry as config
from mlscale.commands.recipes import entry as recipes
from mlscale.commands.runs import entry as runs
from mlscale.errors import MLScaleError


@pytest.mark.parametrize(
    ("main", "argv", "what", "fix"),
    [
        (runs.main, ["lst"], "mlscale runs has no 'lst'", "mlscale runs ls"),
        (config.main, ["shwo"], "mlscale config has no 'shwo'", "mlscale config show"),
        (recipes.main, ["quux"], "mlscale recipes has no 'quux'", "mlscale recipes --help"),
        (recipes.main, ["cp", "resnet"], "the following arguments are required: to", "mlscale recipes cp --help"),
    ],
)
def test_mistakes(main: Callable[[Sequence[str]], int], argv: list[str], what: str, fix: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        main(argv)
    assert (caught.value.what, caught.value.fix) == (what, fix)
