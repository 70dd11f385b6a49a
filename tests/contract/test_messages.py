"""Every error has one form (lower case, no full stop) and a fix: checked in the source, where each is made."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ERRORS = {"MLScaleError", "Busy", "CorruptMemberError", "NoExperiment"}  # BadSample has a fix of its own
NAMES = {
    "Fashion-MNIST",
    "KServe",
    "Kubernetes",
    "Lightning",
    "OpenVINO",
    "TensorFlow",
}  # besides what is written in capitals throughout
# Errors without a fix, by module and function, each with the reason why there is nothing to type.
WITHOUT_FIX = {
    "mlscale.commands.verify_resume.entry._make_reference_error": (
        "quotes the message of the run that failed, its fix included"
    ),
    "mlscale.launch.external.other_rank._raise_if_failed": "the message of rank 0, its fix included",
    "mlscale.launch.debugger.enable_debugging": "the user left the debugger's prompt by `q`",
    "mlscale.launch.rank_failures.write_rank_failure": (
        "never shown: the parent recognises it, and `_explain_unwritten_failure` has the fix"
    ),
    "mlscale.launch.rank_failures.write_remote_failure": "never shown: the parent names the rank that failed first",
    "mlscale.runs.recover.read_run_manifest": (
        "never shown: caught below, where the report says what seals the run again"
    ),
    "mlscale.serve.server.run_load": "for clients, who learn nothing of the server's inside; its log has the exception",
}


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


@pytest.fixture(scope="module")
def errors() -> list[Error]:
    """Every error that is made somewhere."""
    found: list[Error] = []
    for path in sorted((ROOT / "mlscale").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found += _errors_of(module, "", ast.parse(path.read_text()), None)
    return found


def _errors_of(module: str, function: str, tree: ast.AST, scope: ast.AST | None) -> Iterator[Error]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _errors_of(module, node.name, node, node)
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
            yield Error(module, function, node, scope or tree)
        yield from _errors_of(module, function, node, scope)


def test_every_error_has_a_fix(errors: list[Error]) -> None:
    assert len(errors) > 500
    missing = [error for error in errors if not error.texts("fix") or "" in error.texts("fix")]
    without = {f"{error.module}.{error.function}" for error in missing}
    assert [error.place for error in missing if f"{error.module}.{error.function}" not in WITHOUT_FIX] == []
    assert set(WITHOUT_FIX) - without == set(), "these have a fix by now"


def test_messages_begin_in_lower_case_and_end_without_a_full_stop(errors: list[Error]) -> None:
    wrong = []
    for error in errors:
        for argument in ("what", "why", "fix"):
            for text in error.texts(argument):
                first = re.match(r"[A-Z][\w&-]*", text)
                ordinary = first and first[0] not in NAMES and (len(first[0]) == 1 or not first[0].isupper())
                if text.endswith(".") or ordinary:
                    wrong.append(f"{error.place} {argument}: {text}")
    assert wrong == []
