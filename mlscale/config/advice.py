"""What to type in place of a key that isn't valid.

A missing suggestion is better than a wrong one: what is suggested are keys and options that exist, with values that
their types accept; where two names are equally near, both are listed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import yaml

from mlscale.config import not_yet
from mlscale.config.aliases import Alias, table
from mlscale.config.distance import distance, folded
from mlscale.config.fields import MISSING, Option, shipped
from mlscale.config.nodes import Node, join
from mlscale.config.roots import shipped_folder
from mlscale.config.suggest import nearest, override, show
from mlscale.config.types import Type
from mlscale.config.values import converted

_MISSING_PREFIX = 0.5  # `lr` for optimizer.lr
_PART_OF_PREFIX = 0.3  # `checkpoint.keep` for callbacks.checkpoint.keep
_OTHER_OPTION = 0.6  # a key that another option of its group has
_FOREIGN = 0.4  # a typo of a name from elsewhere
_WRONG_VALUE = 0.7  # a key that does not take the value
_FAR = 9.0  # another front part
_MARGIN = 0.4  # by which the best must be better than the next, or both are listed
_FEW = 3  # candidates that are listed
_FILLERS = frozenset({"", "n", "nb", "nr", "num", "no", "number", "of", "the", "value", "param"})
_ON, _OFF = ("true", "1", "yes", "on", "y"), ("false", "0", "no", "off", "n")


@dataclass(frozen=True)
class Advice:
    """The override to type, and why it differs from what was typed; either may be empty."""

    fix: str
    why: str = ""


@dataclass(frozen=True)
class Names:
    """What may be set in this config.

    Attributes:
        paths: full key paths.
        groups: the groups with their options.
        batches: processes × accumulation.
        types: the types that the value of a key must have.
    """

    paths: Collection[str]
    groups: Mapping[str, Sequence[str]]
    batches: int = 1
    types: Callable[[str], Sequence[Type]] = lambda path: ()


@dataclass(frozen=True)
class _Candidate:
    cost: float
    fix: str


def advise(path: str, value: object, names: Names) -> Advice | None:
    """What to type in place of the unknown `path`: the same key spelled right, a foreign name's meaning, the same key
    elsewhere, or the nearest one; None where nothing is near.
    """
    whole = table().keys.get(_folded_path(path)) if "." in path else None
    if whole is not None and (advice := render(whole, path, value, names)):
        return advice
    here = _same_key(path, value, names, anywhere=False)
    if here is not None and _key_of(here.fix) in names.paths:
        return here
    if named := _named_option(path, names):
        return render(named, path, value, names)
    alias = table().get(path)
    meant = render(alias, path, value, names) if alias is not None else None
    same = _same_key(path, value, names, anywhere=True)
    if here is not None:  # a key of another option: unless the foreign name means another one of the same group
        of_group = meant is not None and not _is_refused(alias, meant) and _group(meant.fix) == _group(path)
        return meant if of_group else here
    if alias is not None and meant is not None and not _goes_before(same, meant, alias, names):
        return meant
    if option := _misspelt_group(path, value, names.groups):
        return Advice(option)
    return same or meant or _nearest_key(path, value, names)


def _is_refused(alias: Alias | None, meant: Advice) -> bool:
    return alias is not None and bool(alias.unsupported) and meant.fix.startswith("leave ")


def _group(text: str) -> str:
    """The first part of a key path, or of the first key of a suggestion."""
    return text.partition("=")[0].partition(".")[0].strip("\"'")


def _goes_before(same: Advice | None, meant: Advice, alias: Alias, names: Names) -> bool:
    """Whether the key of the same name is suggested, and not what the foreign name means: it is the only one and
    documented, or there is no such setting.
    """
    if same is None:
        return False
    key = _key_of(same.fix)
    if _is_refused(alias, meant):
        return key in names.paths
    if same.why or alias.first:
        return False
    return key != _key_of(meant.fix) and key in names.paths and _is_documented(key)


def render(alias: Alias, path: str, value: object, names: Names) -> Advice | None:
    """What `alias` and the value mean in this config; None where nothing of it suits."""
    for word in _spellings(value):
        if word in alias.values:
            return Advice(alias.values[word] or f"leave {path} out", alias.why)
    if alias.group and (fix := of_group(alias.group, value, names)):
        return Advice(fix, alias.why)
    value = _convert(alias, value, names)
    for exactly in (True, False):
        for template in alias.to:
            if fix := fill(template, value, names, exactly=exactly):
                return Advice(fix, alias.why)
    if alias.unsupported:
        return Advice(f"leave {path} out", f"not supported: {alias.unsupported}")
    options = names.groups.get(alias.group, ())
    if options:
        return Advice(f"{alias.group}=<{'|'.join(options)}>", alias.why)
    return None


def of_group(group: str, value: object, names: Names) -> str:
    """The option of a group that a value names, here or elsewhere; "" for none."""
    options = names.groups.get(group, ())
    alias = table().options.get(group, Alias())
    for word in _spellings(value):
        if word in alias.values and not any(folded(option) == word for option in options):
            return alias.values[word]
    if not isinstance(value, str):
        return ""
    if not_yet.of_option(group, value):
        return ""
    if option := nearest(value, options):
        # Callbacks are added to the usual ones; of every other group one option takes the place of another.
        added = group == "callbacks" and option not in ("default", "none")
        return f"{group}=[default,{option}]" if added else f"{group}={option}"
    return next(filter(None, (fill(template, value, names) for template in alias.to)), "")


def fill(template: str, value: object, names: Names, *, exactly: bool = True) -> str:
    """The overrides of a template with the value in it; "" where this config has no such key, or not for this value.

    Args:
        exactly: only with a value that fits; otherwise with a placeholder where it does not.
    """
    if template.startswith("mlscale "):
        return template
    chosen: dict[str, Type | Sequence[Type] | None] = {}
    built: set[str] = set()
    words = []
    for word in template.split(" "):
        key, _, right = word.partition("=")
        if key in names.groups:
            picked = right.strip("[]").split(",")
            if not set(picked) <= set(names.groups[key]):
                return ""
            for option in picked:
                chosen |= option_types(key, option)
            words.append(word)
            continue
        if key.startswith("~"):
            words.append(word)
            continue
        filled = _filled(right, value)
        if filled is None:
            return ""
        node = key.rpartition(".")[0]
        if key.endswith("._target_"):
            built.add(node)
        elif node not in built:
            types = chosen[key] if key in chosen else names.types(key) if key in names.paths else None
            if types is None:
                return ""
            filled = _typed(filled, types, exactly=exactly)
            if filled is None:
                return ""
        words.append(filled.word(key))
    return " ".join(words)


@dataclass(frozen=True)
class _Filled:
    """The right side of an override: a value, or the text of a placeholder."""

    value: object = None
    text: str = ""

    def word(self, key: str) -> str:
        return f"{key}={self.text}" if self.text else override(key, self.value)


def _filled(right: str, value: object) -> _Filled | None:
    """The value that a template's right side stands for; None where the value is not of its kind."""
    if right == "{value}":
        return _Filled(text=value) if isinstance(value, str) and value.startswith("<") else _Filled(value)
    if right in ("{name}", "{path}"):
        dotted = isinstance(value, str) and bool(re.fullmatch(r"[\w./~-]*[./][\w./~-]*", value))
        plain = isinstance(value, str) and bool(re.fullmatch(r"[A-Za-z][\w-]*", value))
        return _Filled(value) if (plain if right == "{name}" else dotted) else None
    if "<" in right:
        return _Filled(text=right)
    if "{value}" in right:
        right = right.replace("{value}", show(value))
    return _Filled(yaml.safe_load(re.sub(r"(?<=[{,]\w{5}):", ": ", right) if right.startswith("{") else right))


def _typed(filled: _Filled, types: object, *, exactly: bool) -> _Filled | None:
    if filled.text or not isinstance(types, Sequence):
        return filled
    fits, form = converted(filled.value, types)
    if fits:
        return _Filled(form)
    return None if exactly else _Filled(text=f"<{types[-1].text}>")


@cache
def option_types(group: str, name: str) -> dict[str, Sequence[Type]]:
    """The keys that a shipped option brings, and the types of their values."""
    option = next((item for item in shipped().in_group(group) if item.name == name), None)
    if option is None:
        return {}
    if option.target is None:
        return {item.path: [item.type] if item.type else [] for item in option.fields}
    node = Node(option.package, {"_target_": option.target}, shipped())
    return {path: node.types(path.removeprefix(f"{node.path}.")) for path in node.paths}


def default_names(groups: Mapping[str, Sequence[str]]) -> Names:
    """What may be set in a run's config as it is shipped, for words that are answered before one is composed."""
    types: dict[str, Sequence[Type]] = {
        path: [field.type] if field.type else [] for path, field in shipped().top.items() if "derived." not in path
    }
    for group, option in _default_options():
        types |= option_types(group, option)
    return Names(types, groups, types=lambda path: types.get(path, ()))


@cache
def _default_options() -> tuple[tuple[str, str], ...]:
    base = yaml.safe_load((shipped_folder("conf") / "base" / "run.yaml").read_text(encoding="utf-8"))
    chosen = [
        (key.strip("/"), name) for item in base["defaults"] if isinstance(item, dict) for key, name in item.items()
    ]
    usual = yaml.safe_load((shipped_folder("conf") / "callbacks" / "default.yaml").read_text(encoding="utf-8"))
    return (*chosen, *(("callbacks", name) for name in usual["defaults"]))


def readable(text: str) -> object:
    """The value that a word of the command line is read as."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _folded_path(path: str) -> str:
    return ".".join(folded(part) for part in path.split("."))


def _spellings(value: object) -> Iterator[str]:
    """The value as the table's `values` are looked up: as typed, then as a switch."""
    text = show(value).strip("'").lower()
    yield text
    if not re.fullmatch(r"[+-]?[\d._]+", text):
        yield folded(text)
    if text in _ON:
        yield "true"
    if text in _OFF or text == "null":
        yield "false"


def _convert(alias: Alias, value: object, names: Names) -> object:
    if alias.convert == "list" and not isinstance(value, list):
        return [value]
    if alias.convert == "global_batch" and names.batches != 1:
        return value * names.batches if isinstance(value, int) else f"<{show(value)} × {names.batches}>"
    return value


def _named_option(path: str, names: Names) -> Alias | None:
    """`strategy.name=ddp`: a group whose option is named by a key of it."""
    head, _, last = path.rpartition(".")
    return Alias(group=head) if head in names.groups and last in ("name", "type", "kind", "class", "cls") else None


def _misspelt_group(path: str, value: object, groups: Mapping[str, Sequence[str]]) -> str | None:
    """A group that was misspelt: `optmizer=adamw` → `optimizer=adamw`."""
    group = nearest(path, groups) if isinstance(value, str) and "." not in path else None
    option = nearest(str(value), groups[group]) if group else None
    return f"{group}={option}" if option else None


def _same_key(path: str, value: object, names: Names, *, anywhere: bool) -> Advice | None:
    """The key of the same name, but for case and separators: where its front part was meant, or `anywhere` else."""
    head, _, last = path.rpartition(".")
    here = [item for item in names.paths if folded(item.rpartition(".")[2]) == folded(last)]
    if anywhere:
        documented = [item for item in here if _is_documented(item)]
        found = [_Candidate(0, _with_value(item, value, names)) for item in documented or here]
        found = found or [_Candidate(0, fix) for fix, _ in _of_options(path, value, names)]
    else:
        joined = [item for item in names.paths if "." in item and folded(item) == folded(path)]
        if joined:
            return Advice(_with_value(joined[0], value, names))
        front = _fronts(head, names)
        found = [_Candidate(front(item.rpartition(".")[0]), _with_value(item, value, names)) for item in here]
        if head:
            others = _of_options(path, value, names)
            found += [_Candidate(front(key.rpartition(".")[0]) + _OTHER_OPTION, fix) for fix, key in others]
        found = [item for item in found if item.cost < (_FAR if head else _MISSING_PREFIX)]
    return _best(found)


def _of_options(path: str, value: object, names: Names) -> Iterator[tuple[str, str]]:
    """The keys of this name that options have which are not chosen: what to type, and the key."""
    head, _, last = path.rpartition(".")
    for option in _options(names):
        documented = [field.path for field in option.fields]
        for key in option_types(option.group, option.name) if option.package == head else documented:
            same = key not in names.paths and folded(key.rpartition(".")[2]) == folded(last)
            if same and (fix := _of_option(option, key, value, path)):
                yield fix, key


@cache
def _documented_paths() -> frozenset[str]:
    return frozenset(field.path for option in shipped().options for field in option.fields)


def _is_documented(path: str) -> bool:
    return path in _documented_paths()


def _best(candidates: Sequence[_Candidate]) -> Advice | None:
    """The cheapest candidate, with those that are as good as it."""
    ranked = sorted(candidates, key=lambda item: item.cost)
    return _listed([item.fix for item in ranked if item.cost - ranked[0].cost < _MARGIN])


def _listed(fixes: Sequence[str]) -> Advice | None:
    """One suggestion, or a few candidates; of options of one group that have the same key, the first."""
    keys: dict[str, str] = {}
    for fix in fixes:
        keys.setdefault(_key_of(fix), fix)
    if not 0 < len(keys) <= _FEW:
        return None
    first, *others = keys.values()
    if others:
        return Advice(" or ".join(keys.values()), "several names are equally near")
    options = [fix.partition(" ")[0] for fix in fixes if _key_of(fix) != fix.partition("=")[0]]
    return Advice(first, f"options that have it: {', '.join(options)}" if len(options) > 1 else "")


def _key_of(fix: str) -> str:
    """The key that a suggestion is about: that of its first word which is not an option."""
    words = [word.strip("\"'").partition("=")[0] for word in fix.split(" ")]
    return next((word for word in words if "." in word), words[0])


def _with_value(path: str, value: object, names: Names) -> str:
    types = names.types(path)
    fits, form = converted(value, types)
    return override(path, form) if fits else f"{path}=<{types[-1].text}>"


def _of_option(option: Option, path: str, value: object, typed: str) -> str:
    """The option that brings a key, the key, and what else the option needs; "" where it takes no such value."""
    types = option_types(option.group, option.name).get(path, ())
    fits, form = converted(value, types)
    if not fits and typed.rpartition(".")[0] != path.rpartition(".")[0]:
        return ""
    chosen = f"[default,{option.name}]" if option.group == "callbacks" else option.name
    needed = [item for item in option.fields if item.default == MISSING and item.path != path]
    others = [f"{item.path}=<{item.type.text if item.type else 'value'}>" for item in needed]
    setting = override(path, form) if fits else f"{path}=<{types[-1].text}>"
    return " ".join([f"{option.group}={chosen}", setting, *others])


def _options(names: Names) -> Iterator[Option]:
    """The options that may be chosen besides those that are."""
    for option in shipped().options:
        if option.target is not None and option.name in names.groups.get(option.group, ()):
            yield option


def _nearest_key(path: str, value: object, names: Names) -> Advice | None:
    head = path.rpartition(".")[0]
    if advice := _same_words(path, value, names):
        return advice
    ranked = list(_candidates(path, value, names))
    if not head or not ranked:
        ranked += _foreign(path, value, names)
    if not ranked:
        head, _, last = path.rpartition(".")
        siblings = [item.rpartition(".")[2] for item in names.paths if item.rpartition(".")[0] == head]
        having = [name for name in siblings if last in name.split("_")]
        return Advice(_with_value(join(head, having[0]), value, names)) if len(having) == 1 else None
    return _best(ranked)


def _same_words(path: str, value: object, names: Names) -> Advice | None:
    """The key, or the name from elsewhere, of the same words in another order: `number_of_epochs`, `epochs_max`."""
    words = _words(path.rpartition(".")[2])
    if not words:
        return None
    found = [item for item in names.paths if _words(item.rpartition(".")[2]) == words]
    if len(found) == 1:
        return Advice(_with_value(found[0], value, names))
    for name, spelled in table().spelled.items():
        if _words(spelled) == words and (advice := render(table().keys[name], path, value, names)):
            return advice
    return None


def _words(name: str) -> frozenset[str]:
    return frozenset(word for word in re.split(r"[_\-\s]+", name.lower()) if word not in _FILLERS)


def _candidates(path: str, value: object, names: Names) -> Iterator[_Candidate]:
    """Every key that is near to what was typed; that of an option which is not chosen costs a little more."""
    front = _fronts(path.rpartition(".")[0], names)
    for name in names.paths:
        cost = _cost(path, name, front)
        if cost is not None:
            fits, _ = converted(value, names.types(name))
            if fits or front(name.rpartition(".")[0]) == 0:
                yield _Candidate(cost + (0 if fits else _WRONG_VALUE), _with_value(name, value, names))
    for option in _options(names):
        for field in option.fields:
            far = None if field.path in names.paths else _cost(path, field.path, front)
            if far is not None and (fix := _of_option(option, field.path, value, path)):
                yield _Candidate(far + _OTHER_OPTION, fix)


def _foreign(path: str, value: object, names: Names) -> Iterator[_Candidate]:
    """Typos of names from elsewhere."""
    last = folded(path.rpartition(".")[2])
    limit = 1.0 if len(last) < 12 else 2.0
    own = {folded(name) for name in names.paths}
    for name, alias in table().keys.items():
        if len(last) < 4 or name in own or abs(len(name) - len(last)) > limit or alias.unsupported:
            continue
        cost = distance(last, name, limit)
        advice = render(alias, path, value, names) if cost <= limit else None
        if advice and "<" not in advice.fix:
            yield _Candidate(cost + _FOREIGN, advice.fix)


def _cost(path: str, name: str, front_of: Callable[[str], float]) -> float | None:
    """How far a key is from what was typed: the edits of its last part, and what its front part lacks; None for far."""
    head, _, last = path.rpartition(".")
    other_head, _, other = name.rpartition(".")
    front = front_of(other_head)
    typed = folded(last)
    limit = _limit(typed, same_front=bool(head) and front == 0)
    costs = []
    if front < _FAR and (cost := distance(typed, folded(other), limit)) <= limit:
        costs.append(cost + front)
    if (whole := distance(folded(path), folded(name), 2.0)) <= 2 and len(folded(path)) > 5:
        costs.append(whole)
    return min(costs) if costs else None


def _fronts(typed: str, names: Names) -> Callable[[str], float]:
    """What it costs to take the front part that was typed for another one: one that exists is no typo."""
    exists = typed in names.groups or any(name.startswith(f"{typed}.") for name in names.paths)

    @cache
    def front(other: str) -> float:
        cost = _front(typed, other)
        return cost if cost < 1 or not exists else _FAR

    return front


def _front(typed: str, front: str) -> float:
    """What it costs to take one front part for another: nothing for the same one, little for a part of it."""
    if folded(typed) == folded(front) or typed.lower() == front.lower():
        return 0.0
    if not typed:
        return _MISSING_PREFIX
    if front.endswith(f".{typed}") or front.startswith(f"{typed}."):
        return _PART_OF_PREFIX
    limit = 1.0 if len(typed) < 5 else 2.0
    cost = distance(folded(typed), folded(front), limit)
    if cost <= limit:
        return cost
    # Of a front part of several names one was misspelt, or it is the only one that was typed, misspelt.
    last = front.rpartition(".")[2]
    cost = distance(folded(typed.rpartition(".")[2]), folded(last), limit)
    return cost + _PART_OF_PREFIX if "." in front and cost <= limit else _FAR


def _limit(typed: str, *, same_front: bool) -> float:
    length = len(typed)
    if same_front:
        return 1.0 if length <= 3 else 2.0 if length <= 7 else 3.0
    return 1.0 if length <= 7 else 2.0 if length <= 11 else 3.0
