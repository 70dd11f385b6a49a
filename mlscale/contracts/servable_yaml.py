"""Read servable.yaml. The file is not trusted: no content may fill the memory, or take hours to read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from mlscale.contracts import expect_format
from mlscale.errors import MLScaleError

DOCUMENT = "servable.yaml"
DIGEST = "\n# SHA-256 of the lines above: "
_LARGEST = 96 << 20
"""Largest size, bytes: the file of a tokenizer fits."""
_MOST_VALUES = 2_000_000
"""Values of all kinds, which take far more memory than their bytes: labels of a million classes fit."""
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
        text, _, digest = path.read_text(encoding="utf-8").partition(DIGEST)
        # Absent in what an earlier version, or a person, has written.
        if digest and digest.strip() != compute_digest(text):
            raise ValueError("its SHA-256 is another: it is not what was exported")
        _check_plain(text)
        document = parse_yaml(text)
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


def compute_digest(text: str) -> str:
    """Return the SHA-256 of the lines above that with the digest."""
    return hashlib.sha256(text.encode()).hexdigest()


def _check_plain(text: str) -> None:
    """Raise an error for YAML that no export writes: nested aliases fill any memory, deep nesting takes hours to read.

    Raises:
        ValueError: it has an alias, or is nested more than 10 deep.
    """
    import yaml

    # Events are parsed one by one, without building any value; the loop ends at the first offence.
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=_get_safe_loader())):
        if number > _MOST_VALUES:
            raise ValueError(f"it has more than {_MOST_VALUES:,} values")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST:
            raise ValueError("it has aliases, or is nested too deep")


def parse_yaml(text: str) -> Any:
    """Return the content of a YAML text, as `yaml.safe_load` does."""
    loader = _get_safe_loader()(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _get_safe_loader() -> Any:
    import yaml

    # That of C, where PyYAML has it: the file of a tokenizer would take seconds without.
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)
