"""The keys and options of a config, and the advice on one of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from mlscale.config.schema.job_facts import JobFacts
from mlscale.config.schema.value_types import Type


@dataclass(frozen=True)
class Advice:
    """The override to type, and the reason why it differs from what was typed; either may be empty.

    Attributes:
        exact: the override has the value that was typed; otherwise an example, or a sentence in place of an override.
    """

    fix: str
    why: str = ""
    exact: bool = True


@dataclass(frozen=True)
class Names:
    """The keys and options that may be set in this config.

    Attributes:
        paths: full key paths.
        groups: the groups with their options.
        batches: processes × accumulation.
        types: the types that the value of a key must have.
        nodes: the paths of groups and of objects inside them, in front of keys.
        epochs: the length of the run, where it is known.
        facts: the data and the task.
        values: returns the value that a key has, None for none; interpolations as they are written.
        is_typed: returns whether the command line sets a key: then it is meant as it is.
    """

    paths: Collection[str]
    groups: Mapping[str, Sequence[str]]
    batches: int = 1
    types: Callable[[str], Sequence[Type]] = lambda path: ()
    nodes: Collection[str] = ()
    epochs: int | None = None
    facts: JobFacts = field(default_factory=JobFacts)
    values: Callable[[str], object] = lambda path: None
    is_typed: Callable[[str], bool] = lambda path: False
