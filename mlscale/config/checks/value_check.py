"""The values of one config against the types of their keys; interpolations last, by the value they resolve to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mlscale.config.checks.checked_config import STORED_CONFIG, CheckedConfig
from mlscale.config.checks.interpolations import resolve_value
from mlscale.config.schema.documented_fields import Field
from mlscale.config.schema.key_owners import FORMER_VALUES
from mlscale.config.schema.value_types import Type
from mlscale.config.schema.values import check_resolved_value, check_value_type
from mlscale.config.signatures.signatures import Parameter
from mlscale.errors import MLScaleError


class ValueCheck:
    """The check of all values of a config; it knows which keys were reported, so that none is reported twice."""

    def __init__(self, config: CheckedConfig) -> None:
        self._config = config
        self._wrong: set[str] = set()  # `${key}` of the keys that were reported
        self._interpolated: list[tuple[str, str, Sequence[Type], Field | None, Parameter | None]] = []

    def mark_wrong(self, path: str) -> None:
        """Leave out the values that repeat this key: its problem is reported."""
        self._wrong.add("${" + path + "}")

    def check_type(
        self,
        path: str,
        value: object,
        types: Sequence[Type],
        field: Field | None,
        parameter: Parameter | None = None,
    ) -> Iterator[MLScaleError]:
        """Yield the problem of a value of the wrong type; interpolations are collected and checked last."""
        if isinstance(value, str) and "${" in value:
            self._interpolated.append((path, value, types, field, parameter))
        if (path, value) in FORMER_VALUES.items() and self._config.describe_origin(path).startswith(STORED_CONFIG):
            return
        for problem in check_value_type(path, value, types, field, parameter, self._config.describe_origin):
            self.mark_wrong(path)
            yield problem

    def check_interpolated_values(self) -> Iterator[MLScaleError]:
        """Yield the problems of interpolations of the wrong type. One that repeats a key is checked after that key, so
        that a problem is reported once.
        """
        keys = {"${" + path + "}" for path, *_ in self._interpolated}
        for path, raw, types, field, parameter in sorted(self._interpolated, key=lambda item: item[1] in keys):
            value = None if raw in self._wrong else resolve_value(self._config.cfg, path)
            problems = list(
                check_resolved_value(path, raw, value, types, field, parameter, self._config.describe_origin)
            )
            if problems or raw in self._wrong:
                self.mark_wrong(path)
            yield from problems
