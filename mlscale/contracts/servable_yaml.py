"""Read servable.yaml. The file is not trusted: no content may fill the memory, or take hours to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlscale.contracts import expect_format
from mlscale.errors import MLScaleError

DOCUMENT = "servable.yaml"
_LARGEST = 16 << 20
"""Largest size, bytes: labels of a million classes fit."""
_DEEPEST = 10
"""Largest number of nested levels; an export writes four."""


def read_document(folder: str | Path) -> dict[str, Any]:
    """Return the content of servable.yaml; the servable's other files are neither read nor verified.

    Raises:
        MLScaleError: it is absent, not a mapping, or of a later format.
    """
    import yaml

    path = Path(folder, DOCUMENT)
    if not path.is_file():
        raise MLScaleError(
            f"not a servable: it has no {DOCUMENT}", where=str(folder), fix="mlscale export last, which makes one"
        )
    try:
        # Both checks come before the YAML document is built.
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
            fix="mlscale export <its run>, which makes the servable again",
        ) from error
    expect_format("servable", document, str(path))
    return document


def _check_plain(text: str) -> None:
    """Raise an error for YAML that no export writes: nested aliases fill any memory, deep nesting takes hours to read.

    Raises:
        ValueError: it has an alias, or is nested more than 10 deep.
    """
    import yaml

    # Events are parsed one by one, without building any value; the loop ends at the first offence.
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST:
            raise ValueError("it has aliases, or is nested too deep")
