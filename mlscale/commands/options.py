"""Read the command line of a command that composes no config: an action, its words, and keys as `key=value`.

What a command takes is declared in its package, as data (`command.Action`); parsing and messages are made from that.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

from mlscale.commands.command import Action, Key
from mlscale.config.names.suggest import find_nearest, is_override
from mlscale.errors import MLScaleError, Problems, raise_all

HELP_FLAGS = ("--help", "-h")
_KEY = re.compile(r"[A-Za-z_][\w.]*")
_ACTION_SYNONYMS = {
    "cat": "show",
    "clone": "cp",
    "compare": "diff",
    "continue": "resume",
    "copy": "cp",
    "create": "add",
    "delete": "rm",
    "get": "show",
    "kill": "cancel",
    "list": "ls",
    "print": "show",
    "publish": "add",
    "register": "add",
    "remove": "rm",
    "restart": "resume",
    "stop": "cancel",
    "tag": "promote",
    "validate": "check",
}  # other words
_KEY_SYNONYMS = {"root": ("runs_dir", "registry.root"), "runs": ("runs_dir",), "verb": ("command",)}  # `--root` means …


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


def suggest_action_keys(error: MLScaleError, actions: Mapping[str, Action], argv: Sequence[str]) -> None:
    """Give the errors for unknown keys of a config, which an action takes besides its own, the nearest of its own."""
    action = actions.get(argv[0] if argv else "") or actions.get("")
    if action is None or not action.overrides:
        return
    for problem in error.problems if isinstance(error, Problems) else (error,):
        unknown = re.fullmatch(r"unknown key '(\w+)'", problem.what)
        word = next((word for word in argv if unknown and word.startswith(f"{unknown[1]}=")), None)
        near = find_nearest(unknown[1], [key.name for key in action.keys]) if unknown and word else None
        if near and word and not is_override(problem.fix):
            problem.fix = f"{near}={shlex.quote(word.partition('=')[2])}"
            problem.why = ""


def _make_unknown_action_error(command: str, actions: Mapping[str, Action], argv: Sequence[str]) -> MLScaleError:
    typed, *rest = argv or [""]
    synonym = _ACTION_SYNONYMS.get(typed)
    best = synonym if synonym in actions else find_nearest(typed, actions)
    return MLScaleError(
        f"unknown word '{typed}'" if typed else f"mlscale {command} needs to know what to do",
        where=f"command line: mlscale {command}",
        why=f"it takes: {', '.join(actions)}",
        fix=_complete_words(f"mlscale {command} {best}", actions[best], rest) if best else f"mlscale {command} --help",
    )


def _complete_words(program: str, action: Action, given: Sequence[str]) -> str:
    """Return a command line with an example of each required word that was not given; keys come after the words."""
    words = [word for word in given if word and "=" not in word and not word.startswith("-")]
    others = [word for word in given if word and word not in words]
    # A word may be typed by its name, too: `ref=last`.
    named = {word.partition("=")[0] for word in others}
    positional = [word for word in action.words if word.name not in named]
    missing = [word.example for word in positional[len(words) :] if word.required]
    return " ".join([program, *map(shlex.quote, words), *missing, *map(shlex.quote, others)])


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
        # First, because `_refuse_options` would refuse this flag, too.
        argv, folders = self._extract_config_dirs(argv)
        self._refuse_options(argv)
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

    def _refuse_options(self, argv: Sequence[str]) -> None:
        """Raise for `--key value`, with the same command line in `key=value`."""
        old: list[str] = []
        line: list[str] = []
        waiting = list(argv)
        while waiting:
            word = waiting.pop(0)
            option, sign, value = word.lstrip("-").partition("=")
            key = self._find_key(option.replace("-", "_")) if word.startswith("-") else None
            if key is None:
                if word.startswith("-") and not self.action.overrides:
                    self._add_problem(f"unknown option '{word}'", fix=f"{self.program} --help")
                line.append(word)
                continue
            old.append(f"'{word}'")
            # `--json` for `output=json`: a value that was typed as a flag.
            if option in key.choices:
                value = option
            elif key.type is bool and not sign:
                value = "true"
            elif not sign:
                value = waiting.pop(0) if waiting else key.example
            line.append(f"{key.name}={value}")
        if old:
            self._add_problem(f"unknown option {', '.join(old)}", fix=f"{self.program} {shlex.join(line)}")
        # Before the words are read: the message has the whole line in the new form, other problems would only repeat
        # it.
        raise_all(self.problems)

    def _find_key(self, option: str) -> Key | None:
        """Return the key that an option means: its name, another name of it, or one of its values."""
        names = (option, *_KEY_SYNONYMS.get(option, ()))
        return next((key for key in self.action.keys if key.name in names or option in key.choices), None)

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
            self._report_unknown_key(name, text)
        elif self._can_take_word():
            self.words.append(word)
        else:
            known_key = next((key for key in self.action.keys if key.name == word), None)
            fix = known_key.setting if known_key else f"leave {word} out"
            self._add_problem(f"unknown word '{word}'", why="settings are typed as key=value", fix=fix)

    def _can_take_word(self) -> bool:
        places = self.action.words
        return bool(places) and (places[-1].many or len(self.words) < len(places))

    def _report_unknown_key(self, name: str, text: str) -> None:
        keys = [key.name for key in self.action.keys]
        best = next((key for key in _KEY_SYNONYMS.get(name, ()) if key in keys), None) or find_nearest(name, keys)
        self._add_problem(
            f"unknown key '{name}'",
            why=f"it takes: {', '.join([*(word.name for word in self.action.words), *keys])}",
            fix=f"{best}={text}" if best else f"{self.program} --help",
        )

    def _bind_words(self) -> dict[str, object]:
        """Return the words by name; those that were typed as a key have theirs already."""
        values: dict[str, object] = {}
        rest = list(self.words)
        named = [f"{word.name}={self.typed[word.name]}" for word in self.action.words if word.name in self.typed]
        complete = _complete_words(self.program, self.action, [*self.words, *named])
        for word in self.action.words:
            if word.name in self.typed:
                values[word.name] = [str(self.typed.pop(word.name))] if word.many else self.typed.pop(word.name)
            elif word.many:
                values[word.name], rest = rest, []
            else:
                values[word.name] = rest.pop(0) if rest else None
            # An empty text is missing, too: `mlscale runs show "$RUN"` with an unset variable.
            if word.required and not values[word.name]:
                self._add_problem(f"{word.name} is missing", why=word.help, fix=complete)
        return values

    def _add_problem(self, what: str, *, fix: str, why: str = "") -> None:
        self.problems.append(MLScaleError(what, where=f"command line: {self.program}", why=why, fix=fix))
