"""The reader of servable.yaml. Anybody may have written it: nothing in it fills the memory, or takes hours to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlscale.contracts import expect
from mlscale.errors import MLScaleError

DOCUMENT = "servable.yaml"
_LARGEST = 16 << 20
"""Bytes: labels of a million classes fit."""
_DEEPEST = 10
"""Levels of nesting; an export writes four."""


def read_document(folder: str | Path) -> dict[str, Any]:
    """servable.yaml alone; what lies beside it is not looked at.

    Raises:
        MLScaleError: it is absent, no mapping, or of a later format.
    """
    import yaml

    path = Path(folder, DOCUMENT)
    if not path.is_file():
        raise MLScaleError(
            f"this is no servable: it has no {DOCUMENT}", where=str(folder), fix="mlscale export last makes one"
        )
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"it is over {_LARGEST:,} bytes")
        text = path.read_text(encoding="utf-8")
        _check_plain(text)
        document = yaml.safe_load(text)
        if not isinstance(document, dict):
            raise ValueError("it holds no mapping")
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise MLScaleError(
            f"can't read {DOCUMENT}",
            where=str(path),
            why=" ".join(str(error).split()),
            fix="mlscale export makes the servable again",
        ) from error
    expect("servable", document, str(path))
    return document


def _check_plain(text: str) -> None:
    """Refuse YAML that no export writes: aliases of aliases fill any memory, and deep nesting takes hours to read.

    Raises:
        ValueError: it has an alias, or is nested more than 10 deep.
    """
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST:
            raise ValueError("it has aliases, or is nested too deep")
