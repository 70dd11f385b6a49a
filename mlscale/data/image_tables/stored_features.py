"""The types that Hugging Face's `datasets` records of its columns: which hold images, and the names of classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

KEY = b"huggingface"
"""The key of the types in the metadata of an Arrow or Parquet schema."""
_LISTS = ("sequence", "list", "large_list")


@dataclass(frozen=True)
class StoredFeatures:
    """The recorded types of columns.

    Attributes:
        images: the columns of images, in their order.
        class_names: of columns of classes, or of lists of classes, the names by number.
        is_of_card: a person may have written them into a README.md; the data is right where they differ.
    """

    images: tuple[str, ...] = ()
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_of_card: bool = False

    def list_class_columns(self) -> list[str]:
        """Return the columns of classes."""
        return list(self.class_names)


def parse_features(features: object) -> StoredFeatures:
    """Return the types of a `features` object, as JSON files and schemas have it; what is unknown is left out."""
    # By anyone who wrote the file: of another form, it is as if there were none.
    if not isinstance(features, dict):
        return StoredFeatures()
    images = [name for name, kind in features.items() if isinstance(kind, dict) and kind.get("_type") == "Image"]
    names = {name: _find_class_names(kind) for name, kind in features.items()}
    return StoredFeatures(tuple(images), {name: classes for name, classes in names.items() if classes})


def parse_schema_features(metadata: Mapping[bytes, bytes] | None) -> StoredFeatures:
    """Return the types that the metadata of an Arrow or Parquet schema holds."""
    # Of another library's schema, or another form, there are no types.
    try:
        document = json.loads((metadata or {}).get(KEY, b"{}"))
        return parse_features(document.get("info", {}).get("features"))
    except (ValueError, AttributeError, RecursionError):
        return StoredFeatures()


def parse_card_features(card: Mapping[str, Any], config: str) -> StoredFeatures:
    """Return the types that the head of a README.md names.

    Args:
        card: the head, `dataset_info` of which has a list of features.
        config: the name of the configuration, where there are several.
    """
    infos = card.get("dataset_info")
    infos = infos if isinstance(infos, list) else [infos]
    known = [info for info in infos if isinstance(info, dict)]
    chosen = next((info for info in known if info.get("config_name", "default") == config), None)
    # A single configuration needs no name.
    listed = (chosen or (known[0] if len(known) == 1 else {})).get("features")
    columns = [column for column in listed if isinstance(column, dict)] if isinstance(listed, list) else []
    images = [str(column.get("name")) for column in columns if column.get("dtype") == "image"]
    names = {str(column.get("name")): _find_card_names(column) for column in columns}
    return StoredFeatures(tuple(images), {name: classes for name, classes in names.items() if classes}, True)


def read_card(text: str) -> dict[str, Any]:
    """Return the head of a README.md, between two lines of dashes; empty where it has none."""
    if not text.startswith("---"):
        return {}
    head = text[3:].partition("\n---")[0]
    # Imported on use: only folders of a Hugging Face repository have such a head.
    import yaml

    # A README.md is text for people first: it need not begin with YAML.
    try:
        card = yaml.safe_load(head)
    except (yaml.YAMLError, RecursionError):
        return {}
    return card if isinstance(card, dict) else {}


def _find_class_names(kind: object) -> tuple[str, ...]:
    # Of earlier versions of the library, a list of one type.
    if isinstance(kind, list) and len(kind) == 1:
        return _find_class_names(kind[0])
    if not isinstance(kind, dict):
        return ()
    if kind.get("_type") == "ClassLabel" and isinstance(kind.get("names"), list):
        return _format_names(kind["names"])
    # A list of classes has their names in the type of its elements.
    return _find_class_names(kind.get("feature"))


def _find_card_names(column: Mapping[str, Any]) -> tuple[str, ...]:
    kinds = [column.get("dtype"), *(column.get(key) for key in _LISTS)]
    for kind in kinds:
        label = kind.get("class_label") if isinstance(kind, dict) else None
        names = label.get("names") if isinstance(label, dict) else None
        # By number, in quotes; their order in the file is that of texts.
        if isinstance(names, dict):
            by_number = {str(number): name for number, name in names.items()}
            numbers = [str(number) for number in range(len(by_number))]
            # With a number left out, the names behind it would be those of other classes.
            return _format_names([by_number[number] for number in numbers]) if set(numbers) == set(by_number) else ()
        if isinstance(names, list):
            return _format_names(names)
    return ()


def _format_names(names: Sequence[object]) -> tuple[str, ...]:
    """Return names as texts; none of them where one is not a name, or is given to two classes."""
    texts = tuple(str(name) for name in names)
    # YAML reads an unquoted `yes` as True, and `null` as None.
    are_names = all(isinstance(name, str | int | float) and not isinstance(name, bool) for name in names)
    return texts if are_names and len(set(texts)) == len(texts) else ()
