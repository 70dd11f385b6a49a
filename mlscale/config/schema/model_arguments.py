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
        needs_weights: False for a command that trains the config of a run anew, whether or not the run has saved any.
        takes_servables: of those that bring it, whether a servable will do; the others work in the folder of its run.
        called: its name in the usage line.
    """

    examples: tuple[str, ...]
    replaced: tuple[str, ...]
    is_optional: bool = False
    brings_config: bool = False
    needs_weights: bool = True
    takes_servables: bool = False
    called: str = MODEL

    @property
    def usage(self) -> str:
        """The argument in a usage line: `MODEL`, or `[MODEL]` where it may be left out."""
        return f"[{self.called}]" if self.is_optional else self.called


_ANY, _OF_A_RUN, _SERVABLE = ("last", "resnet@champion"), ("last",), ("resnet@champion",)
# Every command answers all of them: which one took which key before is nothing to remember.
_REPLACED = ("run", "version", "servable")
REFERENCES = {
    "evaluate": TakesReference(_ANY, _REPLACED, brings_config=True, takes_servables=True),
    "predict": TakesReference(_ANY, _REPLACED, brings_config=True, takes_servables=True),
    "compress": TakesReference(_OF_A_RUN, _REPLACED, brings_config=True),
    "export": TakesReference(_OF_A_RUN, _REPLACED, brings_config=True),
    "profile": TakesReference(_OF_A_RUN, _REPLACED, brings_config=True, is_optional=True),
    **dict.fromkeys(
        ("estimate", "drill", "verify-resume"),
        TakesReference(
            _OF_A_RUN,
            ("run", "like", "resume"),
            brings_config=True,
            needs_weights=False,
            is_optional=True,
            called="RUN",
        ),
    ),
    "serve": TakesReference(_SERVABLE, _REPLACED),
    "monitor": TakesReference(_SERVABLE, _REPLACED),
    "retrain": TakesReference(_SERVABLE, _REPLACED),
    "loadtest": TakesReference(("http://127.0.0.1:8000",), ("url",), called="URL"),
}

# Packages add theirs to REFERENCES when they are searched. No key named a model in a command that is new.
OF_THIRD_PARTY = TakesReference(_ANY, (), brings_config=True, takes_servables=True)
