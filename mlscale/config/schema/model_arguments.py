"""The commands whose first argument is a trained model, and what each takes there."""

from __future__ import annotations

from typing import NamedTuple

REF, MODEL = "ref", "MODEL"


class TakesReference(NamedTuple):
    """The first argument of a command.

    Attributes:
        examples: of it, the usual one first.
        replaced: keys that named it before.
        is_optional: whether it may be left out.
        brings_config: whether the config of what is named is the base of the command's own.
        renamed: other keys of the command that have another name now.
        called: its name in the usage line.
    """

    examples: tuple[str, ...]
    replaced: tuple[str, ...]
    is_optional: bool = False
    brings_config: bool = False
    renamed: tuple[tuple[str, str], ...] = ()
    called: str = MODEL

    @property
    def usage(self) -> str:
        """The argument in a usage line: `MODEL`, or `[MODEL]` where it may be left out."""
        return f"[{self.called}]" if self.is_optional else self.called


_ANY, _OF_A_RUN, _SERVABLE = ("last", "resnet@champion"), ("last",), ("resnet@champion",)
# Every command answers all of them: which one took which key before is nothing to remember.
_REPLACED = ("run", "version", "servable")
REFERENCES = {
    "evaluate": TakesReference(_ANY, _REPLACED, brings_config=True),
    "predict": TakesReference(_ANY, _REPLACED, brings_config=True),
    "compress": TakesReference(_OF_A_RUN, _REPLACED, brings_config=True),
    "export": TakesReference(_OF_A_RUN, _REPLACED, brings_config=True),
    "profile": TakesReference(_OF_A_RUN, _REPLACED, brings_config=True, is_optional=True),
    "serve": TakesReference(_SERVABLE, _REPLACED),
    "monitor": TakesReference(_SERVABLE, _REPLACED),
    "retrain": TakesReference(_SERVABLE, _REPLACED),
    "loadtest": TakesReference(("http://127.0.0.1:8000",), ("url",), renamed=(("asked", "model_name"),), called="URL"),
}

TAKE_SERVABLES = ("evaluate", "predict")  # of those that bring the config of a run: the others work in its folder
