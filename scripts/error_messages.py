"""The errors that mlscale may raise, read from its source: each place that makes one, and the texts it may have.

The tests check their form; the site lists them, so that its search finds a message.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ERRORS = {"MLScaleError", "Busy", "CorruptMemberError", "NoExperiment"}  # BadSample has a fix of its own


@dataclass(frozen=True)
class Error:
    """A place in the source where an error is made."""

    module: str
    function: str
    call: ast.Call
    scope: ast.AST

    @property
    def place(self) -> str:
        return f"{self.module}:{self.call.lineno}"

    def texts(self, argument: str) -> list[str]:
        """Return the texts that an argument may be; what is put in is a '{}'."""
        given: dict[str | None, ast.AST] = {keyword.arg: keyword.value for keyword in self.call.keywords}
        if None in given:  # `**fields` of another error
            return ["{}"]
        if argument == "what" and self.call.args:
            given["what"] = self.call.args[0]
        return list(self._texts(given[argument], frozenset())) if argument in given else []

    def _texts(self, node: ast.AST, followed: frozenset[str]) -> Iterator[str]:
        if isinstance(node, ast.Constant):
            yield str(node.value)
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.IfExp):
            yield from self._texts(node.body, followed)
            yield from self._texts(node.orelse, followed)
        elif isinstance(node, ast.BoolOp):
            *first, last = node.values  # an empty text gives way to what follows the `or`
            yield from (text for value in first for text in self._texts(value, followed) if text)
            yield from self._texts(last, followed)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            for right in self._texts(node.right, followed):
                yield from (f"{left}{right}" for left in self._texts(node.left, followed))
        elif isinstance(node, ast.Name):
            assigned = [value for name, value in _assigned(self.scope) if name == node.id]
            for value in assigned if node.id not in followed else ():
                yield from self._texts(value, followed | {node.id})
            if not assigned:
                yield "{}"
        else:
            yield "{}"


def _assigned(scope: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield the names that are assigned in a function, with their values."""
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value
                elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = zip(target.elts, node.value.elts, strict=True)
                    yield from ((name.id, value) for name, value in pairs if isinstance(name, ast.Name))


@cache
def read_errors() -> list[Error]:
    """Return every error that is made somewhere."""
    found: list[Error] = []
    for path in sorted((ROOT / "mlscale").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found += _errors_of(module, "", ast.parse(path.read_text(encoding="utf-8")), None)
    return found


def _errors_of(module: str, function: str, tree: ast.AST, scope: ast.AST | None) -> Iterator[Error]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _errors_of(module, node.name, node, node)
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
            yield Error(module, function, node, scope or tree)
        yield from _errors_of(module, function, node, scope)


def write_messages_page() -> str:
    """Return a page of all messages by subject, with the reasons and fixes of each; `…` stands for what is put in."""
    parts = [_HEAD]
    for subject, messages in sorted(_group_messages().items()):
        parts.append(f"## {subject}")
        for what, lines in sorted(messages.items()):
            parts.append("\n".join([f"### {_escape(what)}", "", *(f"- {_escape(line)}" for line in lines)]))
    return "\n\n".join(parts) + "\n"


_HEAD = """---
hide: [toc]
search: {boost: 2}
---

# Error messages

Search for the words of a message; `…` stands for your names and values. Below each: why it is raised, and what to
type. [Exit codes](errors.md) has the form of all messages. An error shows its own fix, which fits better than these."""
_ESCAPES = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]#|$"} | {"<": "&lt;", ">": "&gt;"})


def _group_messages() -> dict[str, dict[str, list[str]]]:
    """Return the lines below each message, by subject and message."""
    by_subject: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for error in read_errors():
        for what in map(_put_in, error.texts("what")):
            if len(what.replace("…", "").split()) < 2:  # the text of another error says nothing here
                continue
            lines = by_subject[error.module.split(".")[1]].setdefault(what, [])
            for name in ("why", "fix"):
                texts = [line for text in error.texts(name) for line in text.splitlines()]
                lines += [f"{name}: {_put_in(text)}" for text in texts if text.replace("{}", "").strip()]
            lines[:] = dict.fromkeys(lines)
    return by_subject


def _put_in(text: str) -> str:
    return " ".join(text.replace("{}", "…").split())


def _escape(text: str) -> str:
    """Return a text as Markdown that shows it unchanged."""
    return text.translate(_ESCAPES)
