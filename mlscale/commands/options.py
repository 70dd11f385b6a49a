"""Read the command line of a command that composes no config: an action, its words, and keys as `key=value`.

What a command takes is declared in its package, as data (`command.Action`); parsing and messages are made from that.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

from mlscale.commands.command import Action
from mlscale.config.names.suggest import find_nearest
from mlscale.errors import MLScaleError, raise_all

HELP_FLAGS = ("--help", "-h")
_KEY = re.compile(r"[A-Za-z_][\w.]*")
_FORM = "settings are typed as key=value"


class Options(SimpleNamespace):
    """The typed values by name (a '.' of a name is '_'), with `action`, `overrides` and `config_dir`."""


def read_options(command: str, actions: Mapping[str, Action], argv: Sequence[str]) -> Options:
    """Read the command line of `mlscale <command>`; a command with one action has it under the name ''.

    Raises:
        MLScaleError: all its problems at once, each with a fix.
    """
    # A command that does one thing has no word for it: `mlscale env`, not `mlscale env show`.
    if "" in actions:
        return _CommandLine(f"mlscale {command}", "", actions[""]).parse_words(argv)
    if not argv or argv[0] not in actions:
        raise _make_unknown_action_error(command, actions, argv)
    return _CommandLine(f"mlscale {command} {argv[0]}", argv[0], actions[argv[0]]).parse_words(argv[1:])


def _make_unknown_action_error(command: str, actions: Mapping[str, Action], argv: Sequence[str]) -> MLScaleError:
    typed, *rest = argv or [""]
    meant = {"list": "ls", "delete": "rm", "remove": "rm"}.get(typed, "")
    best = meant if meant in actions else find_nearest(typed, actions)
    return MLScaleError(
        f"unknown word '{typed}'" if typed else f"mlscale {command} needs to know what to do",
        where=f"command line: mlscale {command}",
        why=f"it takes: {', '.join(actions)}",
        fix=shlex.join(["mlscale", command, best, *rest]) if best else f"mlscale {command} --help",
    )


@dataclass
class _CommandLine:
    """One command line while it is read."""

    program: str
    name: str
    action: Action
    words: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    typed: dict[str, object] = field(default_factory=dict)
    problems: list[MLScaleError] = field(default_factory=list)

    def parse_words(self, argv: Sequence[str]) -> Options:
        argv, folders = self._extract_config_dirs(argv)
        for word, following in () if self.action.overrides else zip(argv, [*argv[1:], "-"], strict=False):
            if word.startswith("-"):
                name, _, text = word.lstrip("-").partition("=")
                text = text or ("" if following.startswith("-") or "=" in following else following)
                why = f"{_FORM}; {self._list_names()}"
                self._add_problem(f"unknown option '{word}'", why=why, fix=self._suggest(name, text))
        # The value after an option would be reported as a word too many.
        raise_all(self.problems)
        for word in argv:
            self._take_word(word)
        values = self._bind_words()
        raise_all(self.problems)
        # Typed values last, so that they overwrite the defaults.
        values |= {key.name: key.default_value for key in self.action.keys} | self.typed
        # `registry.root` becomes the attribute `registry_root`.
        named = {name.replace(".", "_"): value for name, value in values.items()}
        return Options(action=self.name, overrides=self.overrides, config_dir=folders, **named)

    def _extract_config_dirs(self, argv: Sequence[str]) -> tuple[list[str], list[str]]:
        """Separate `--config-dir DIR` from the other words."""
        rest: list[str] = []
        folders: list[str] = []
        waiting = list(argv)
        while waiting:
            word = waiting.pop(0)
            flag, sign, value = word.partition("=")
            if not self.action.config_dir or flag not in ("--config-dir", "-cd"):
                rest.append(word)
            elif sign or waiting:
                folders.append(value if sign else waiting.pop(0))
            else:
                self._add_problem(f"{flag} needs a folder", fix=f"{self.program} --config-dir conf")
        return rest, folders

    def _take_word(self, word: str) -> None:
        name, sign, text = word.partition("=")
        key = next((key for key in self.action.keys if key.name == name), None)
        if sign and key:
            try:
                value = key.parse_value(text)
            except MLScaleError as problem:
                self.problems.append(problem)
                return
            # A key that takes a list may be repeated: `alias=a alias=b` is `alias=[a,b]`. Any other key is overwritten.
            before = self.typed.get(name, ())
            self.typed[name] = (*before, *value) if isinstance(before, tuple) and isinstance(value, tuple) else value
        elif sign and any(name == known.name for known in self.action.words):
            self.typed[name] = text
        # An unknown `key=value` is an override here: the config that it belongs to is checked later, with suggestions.
        elif self.action.overrides and (sign or word.startswith(("~", "-", "+")) or not self._can_take_word()):
            self.overrides.append(word)
        elif sign and _KEY.fullmatch(name):
            self._add_problem(f"unknown key '{name}'", why=self._list_names(), fix=self._suggest(name, text))
        elif self._can_take_word():
            self.words.append(word)
        else:
            known_key = next((key for key in self.action.keys if key.name == word), None)
            fix = known_key.setting if known_key else f"leave {word} out"
            self._add_problem(f"unknown word '{word}'", why=_FORM, fix=fix)

    def _can_take_word(self) -> bool:
        places = self.action.words
        return bool(places) and (places[-1].many or len(self.words) < len(places))

    def _list_names(self) -> str:
        names = [*(word.name for word in self.action.words), *(key.name for key in self.action.keys)]
        return f"it takes: {', '.join(names)}"

    def _suggest(self, name: str, text: str) -> str:
        """Return the setting of the nearest key, with the typed value or, without one, its default or example."""
        keys = {key.name: key for key in self.action.keys}
        near = find_nearest(name, keys)
        if near is None:
            return f"{self.program} --help"
        value = text or ("true" if keys[near].type is bool else "")
        return f"{near}={shlex.quote(value)}" if value else keys[near].setting

    def _bind_words(self) -> dict[str, object]:
        """Return the words by name; those that were typed as a key have theirs already."""
        values: dict[str, object] = {}
        rest = list(self.words)
        for word in self.action.words:
            if word.name in self.typed:
                values[word.name] = [str(self.typed.pop(word.name))] if word.many else self.typed.pop(word.name)
            elif word.many:
                values[word.name], rest = rest, []
            else:
                values[word.name] = rest.pop(0) if rest else None
            # An empty text is missing, too: `mlscale runs show "$RUN"` with an unset variable.
            if word.required and not values[word.name]:
                self._add_problem(f"{word.name} is missing", why=word.help, fix=f"{word.name}={word.example}")
        return values

    def _add_problem(self, what: str, *, fix: str, why: str = "") -> None:
        self.problems.append(MLScaleError(what, where=f"command line: {self.program}", why=why, fix=fix))
