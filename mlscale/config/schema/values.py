"""Problems of single values: the wrong type, or none where one is needed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence

from mlscale.config.names.foreign_names import find_value_meaning, is_sentence
from mlscale.config.names.suggest import find_nearest, format_hydra_value, format_override
from mlscale.config.schema.documented_fields import MISSING, Field
from mlscale.config.schema.local_paths import create_address_error, find_address
from mlscale.config.schema.value_types import PATH, Type, is_finite, parse_annotation
from mlscale.config.signatures.signatures import Parameter
from mlscale.errors import MLScaleError

_SECRET_LENGTH = 8  # characters from which on a text that was resolved is not shown: it may come from the environment


def check_value_type(
    path: str,
    value: object,
    types: Sequence[Type],
    field: Field | None,
    parameter: Parameter | None,
    where: Callable[[str], str],
) -> Iterator[MLScaleError]:
    """Yield the problem of a value that isn't of all `types`; nothing for an interpolation or a nested node, checked
    later.
    """
    if _is_deferred(value):
        return
    if value == "None" and types:  # Python's word, of which YAML and Hydra make a text
        fix = f"{path}=null" if all(kind.accepts(None) for kind in types) else ""
        yield MLScaleError(f"'{path}' is the text 'None'", where=where(path), why="no value is null", fix=fix)
        return
    for kind in types:
        if not kind.accepts(value):
            if (address := find_address(value)) and PATH.text in kind.text:
                yield create_address_error(path, address, where(path), field.text if field else "")
                return
            meant = find_value_meaning(path, value) if isinstance(value, str) else ""
            why = meant if is_sentence(meant) else field.text if field else ""
            fix = "" if is_sentence(meant) else meant or _format_valid_value(path, value, kind, field, types)
            text = kind.text
            if not is_finite(value):
                text = "a finite number" if isinstance(value, float) else "of finite numbers"
            yield MLScaleError(
                f"'{path}' must be {text}, not {_describe_value(value)}", where=where(path), why=why, fix=fix
            )
            return


def check_resolved_value(
    path: str,
    raw: str,
    value: object,
    types: Sequence[Type],
    field: Field | None,
    parameter: Parameter | None,
    where: Callable[[str], str],
) -> Iterator[MLScaleError]:
    """Yield the problem of an interpolation `raw` whose `value` isn't of all `types`. A value from the environment may
    be a secret: it is shown only if it is too short for one, and is never part of the fix.
    """
    kind = next((kind for kind in types if not kind.accepts(value)), None)
    if kind is None or value is None:  # nothing is known yet of what is derived
        return
    if (address := find_address(value)) and PATH.text in kind.text:
        # Its scheme alone is shown: the rest may be a secret.
        yield create_address_error(path, f"{address.partition(':')[0]}:", where(path), field.text if field else "")
        return
    outside, why = "oc.env" in raw and isinstance(value, str), field.text if field else ""
    long = isinstance(value, str) and len(value) >= _SECRET_LENGTH
    description = f"a text of {len(str(value))} characters" if long else _describe_value(value)
    fix = _format_valid_value(path, raw if outside or long else value, kind, field)
    if outside and kind.accepts(_decode_text(str(value))):
        why = "an environment variable is text until oc.decode reads it"
        fix = format_override(path, "${oc.decode:" + raw + "}")
    what = f"'{path}' must be {kind.text}, {hide_env_default(raw)} is {description}"
    yield MLScaleError(what, where=where(path), why=why, fix=fix)


def _decode_text(text: str) -> object:
    """Return what `oc.decode` reads from a text; the text itself where it reads nothing else."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if _is_deferred(text):  # resolvers in it are not called for the sake of a message
        return text
    decoded = OmegaConf.create({"text": text, "value": "${oc.decode:${text}}"})
    try:
        return OmegaConf.to_object(decoded)["value"]  # type: ignore[call-overload,index]  # of a dictionary
    except OmegaConfBaseException:
        return text


def create_missing_error(
    path: str, field: Field | None, where: str, parameter: Parameter | None = None
) -> MLScaleError:
    """Return the problem of a mandatory key that is not set."""
    kind = field.type if field and field.type else None
    if kind is None and parameter is not None and parameter.annotation:
        kind = parse_annotation(parameter.annotation)
    why = field.text if field else ""
    return MLScaleError(f"'{path}' is not set", where=where, why=why, fix=f"{path}=<{kind.text if kind else 'value'}>")


def _is_deferred(value: object) -> bool:
    """Return whether the value is known only later: an interpolation, a missing value, or an object to be built."""
    if isinstance(value, str):
        return "${" in value or value == MISSING
    if isinstance(value, dict):
        return "_target_" in value or any(_is_deferred(item) for item in value.values())
    return isinstance(value, list) and any(_is_deferred(item) for item in value)


def hide_env_default(raw: str) -> str:
    """Return the expression without the default in `${oc.env:NAME,default}`, which may be a secret."""
    return re.sub(r"(\$\{\s*oc\.env\s*:\s*\w+\s*),[^}]*", r"\1,…", raw)


def _describe_value(value: object) -> str:
    return (
        f"the text {format_hydra_value(value)!r}"
        if isinstance(value, str) and format_hydra_value(value) == value
        else format_hydra_value(value)
    )


def convert_value(value: object, types: Sequence[Type], path: str = "") -> tuple[bool, object]:
    """Return whether a value is of all `types`, as it is or in another form of the same meaning; and that form.

    Args:
        path: the key, whose name states the unit of its numbers.
    """
    if _can_become(value, types):
        return True, value
    for form in _generate_value_forms(value, types[0], path):
        if all(kind.accepts(form) for kind in types):
            return True, form
    return False, value


def _can_become(value: object, types: Sequence[Type]) -> bool:
    """Return whether a value is of all `types`, or may be once it is resolved: a text may become anything, but a list
    or a dictionary stays one.
    """
    if isinstance(value, list) and _is_deferred(value):
        return all(kind.accepts(value) or kind.accepts([]) for kind in types)
    return (isinstance(value, str) and _is_deferred(value)) or all(kind.accepts(value) for kind in types)


def _format_valid_value(path: str, value: object, kind: Type, field: Field | None, types: Sequence[Type] = ()) -> str:
    """Return the override with a value of this type, and of all `types`, that means what was typed; "" for none."""
    # `part=3` is a part of `3/8`: the number in quotes would be no part.
    is_example = isinstance(value, int | float) and field is not None and "such as " in field.text
    forms = () if is_example else _generate_value_forms(value, kind, _add_unit(path, field))
    valid = (form for form in forms if all(item.accepts(form) for item in (kind, *types)))
    return next((format_override(path, form) for form in valid), "")


def _add_unit(path: str, field: Field | None) -> str:
    """Return the key with the unit that its comment opens with, where its name has none: `strategy.timeout`."""
    unit = re.match(r"(seconds|minutes|hours)\b", field.text) if field is not None else None
    return f"{path}_{unit[1]}" if unit else path


_QUOTES = "\"'“”„‘’«»`"
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
_TIMES = {
    name: seconds
    for names, seconds in (
        ("ms", 0.001), ("s sec secs second seconds", 1), ("m min mins minute minutes", 60),
        ("h hr hrs hour hours", 3600), ("d day days", 86400),
    )
    for name in names.split(" ")
}  # fmt: skip
_SIZES = {"kb": 1e3, "k": 1e3, "mb": 1e6, "m": 1e6, "gb": 1e9, "g": 1e9, "tb": 1e12, "t": 1e12}
_COUNTS = {"": 1, "k": 1e3, "K": 1e3, "M": 1e6}
_UNIT_OF_KEY = re.compile(r"(?:.*[._])?(?P<unit>ms|s|seconds|minutes|hours|mb|gb)")
_WITH_UNIT = re.compile(r"(?P<number>\d+\.?\d*|\.\d+) ?(?P<unit>[A-Za-z]+)")


def _convert_unit(text: str, path: str, kind: Type) -> Iterator[object]:
    """Yield a number with a unit in the unit of the key: `90s` is 1.5 of `max_minutes`, `1k` of a count a thousand, and
    `1h` of Lightning's time 00:01:00:00; nothing where the key has another kind of unit.
    """
    if re.fullmatch(r"\d+:\d\d:\d\d", text):
        yield f"00:{text.zfill(8)}"  # hours first
    typed, own = _WITH_UNIT.fullmatch(text), _UNIT_OF_KEY.fullmatch(path)
    if typed is None or path.rpartition(".")[2] == "port":  # which counts nothing
        return
    number, unit = float(typed["number"]), typed["unit"]
    if "time" in kind.text.split(" or ") and unit.lower() in _TIMES:
        minutes, seconds = divmod(round(number * _TIMES[unit.lower()]), 60)
        yield f"{minutes // 1440:02}:{minutes // 60 % 24:02}:{minutes % 60:02}:{seconds:02}"
        return
    of_key = own["unit"] if own else ""
    units = next(units for units in (_COUNTS, _TIMES, _SIZES) if of_key in units)
    if (unit := unit.lower() if of_key else unit) in units:
        converted = float(f"{number * units[unit] / units[of_key]:.12g}")
        yield int(converted) if converted.is_integer() else converted


def _parse_numbers(text: str) -> Iterator[int | float]:
    """Yield the numbers that a text may mean: `1,000` is a thousand, `0,5` a half."""
    plain = text.replace(",", "" if _THOUSANDS.fullmatch(text) else ".")
    # int first: `2` for a number of workers must not become 2.0.
    for read in (int, float):
        with contextlib.suppress(ValueError):
            yield read(plain)


def _generate_value_forms(value: object, kind: Type, path: str = "") -> Iterator[object]:
    if isinstance(value, str):
        text = value.strip().strip(_QUOTES).lower()
        if text in ("true", "yes", "on", "false", "no", "off"):
            yield text in ("true", "yes", "on")
        # `50%` means 0.5.
        if text.endswith("%"):
            yield from (number / 100 for number in _parse_numbers(text[:-1]))
        else:
            yield from _parse_numbers(text)
            yield from _convert_unit(value.strip().strip(_QUOTES), path, kind)
        words = [
            word for word in kind.text.split(" or ") if word not in ("int", "float", "bool", "str", "list", "null")
        ]
        if close := find_nearest(value, words):
            yield close
        if text.startswith("[") and text.endswith("]"):
            # Hydra's grammar could not read it, for a name in it that is not in quotes: `[Temp (°C)]`.
            yield [item.strip().strip(_QUOTES) for item in value.strip()[1:-1].split(",")]
    elif isinstance(value, float) and value.is_integer():
        yield int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value)
        if value in (0, 1):
            yield bool(value)
    elif isinstance(value, float) and is_finite(value):
        yield str(value)
    if isinstance(value, list):
        if len(value) == 1:
            yield value[0]
        yield [
            next((form for form in _generate_item_forms(item, kind) if kind.accepts([form])), item) for item in value
        ]
    elif kind.text.startswith("list"):  # what takes a single value, too, is not answered by a list of it
        yield [value]
        if isinstance(value, bool | int | float):
            yield [format_hydra_value(value)]


def _generate_item_forms(item: object, kind: Type) -> Iterator[object]:
    yield from _generate_value_forms(item, kind)
    if isinstance(item, bool | float):
        yield format_hydra_value(item)  # a name that Hydra reads as another type
