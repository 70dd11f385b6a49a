"""Mutants of a Python file: its functions with one small fault each, which some test should notice.

Faults: a comparison with its boundary moved, turned round or negated; another arithmetic operator; a number one too
large or too small; `and` for `or`; a condition negated, a `not` dropped; True for False; `min` for `max`, `any` for
`all`; the estimate for the end of an interval; a keyword argument left out; another key; None returned; a statement
left out. Messages, types, defaults, decorators and what runs at import stay as they are.
"""

from __future__ import annotations

import ast
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
_ATTRIBUTES = {"low": "value", "high": "value", "value": "low", "min": "max", "max": "min", "any": "all", "all": "any"}
_CONTEXT = 50  # characters around a difference
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
# Read when the file is imported, or not at all: a mutant of them can't be put into the functions that exist.
_NOT_RUN = {"annotation", "returns", "decorator_list", "defaults", "kw_defaults", "type_params"}


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        function: the qualified name of the outermost function that has it.
        line: where it is in the file.
        before, after: the statement, or the head of a compound one, without and with the fault.
        code: what the function becomes.
        first_line: of the function, which tells overloads of one name apart.
    """

    function: str
    line: int
    before: str
    after: str
    code: types.CodeType
    first_line: int

    @property
    def key(self) -> str:
        """What identifies the mutant as long as its statement stays as it is, on whatever line."""
        return f"{self.function}: {self.before} -> {self.after}"

    def format_diff(self, path: str) -> str:
        return f"{path}:{self.line} in {self.function}\n  - {self.before}\n  + {self.after}"


REACHED: set[tuple[str, int]] = set()
"""The functions that were called with the code of `mark_functions`, by qualified name and first line."""


def mark_functions(path: Path) -> dict[tuple[str, int], types.CodeType]:
    """Return the code of each outermost function of a file, with a first statement that adds it to `REACHED`; without
    lambdas, which have no statements. Unlike a trace this costs nothing elsewhere."""
    tree = ast.parse(path.read_text())
    places = {(name, line): f"({name!r}, {line})" for name, line in _read_functions(compile(tree, str(path), "exec"))}
    lines = {line: place for (_, line), place in places.items()}
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        if first in lines:
            (mark,) = ast.parse(f"__import__({__name__!r}, fromlist=['REACHED']).REACHED.add({lines[first]})").body
            node.body.insert(0, ast.copy_location(mark, node.body[0]))
    marked = _read_functions(compile(ast.fix_missing_locations(tree), str(path), "exec"))
    return {place: code for place, code in marked.items() if not place[0].endswith("<lambda>")}


def list_mutants(path: Path) -> list[Mutant]:
    """Return all mutants of a file in the order of its lines; those that compile to the same code are left out."""
    tree = ast.parse(path.read_text())
    original = _read_functions(compile(tree, str(path), "exec"))
    mutants: list[Mutant] = []
    repeated: Counter[tuple[str, str]] = Counter()
    for fault in _list_faults(tree):
        before = _unparse_head(fault.statement)
        kept = fault.apply()
        after = _unparse_head(fault.statement)
        try:
            changed = _read_functions(compile(ast.fix_missing_locations(tree), str(path), "exec"))
        except SyntaxError:
            changed = {}
        finally:
            fault.restore(kept)
        place = next((place for place, code in changed.items() if code != original.get(place)), None)
        # A function that no longer calls super() has other cells, and can't be put in the place of the first.
        if place and place in original and changed[place].co_freevars == original[place].co_freevars:
            before, after = _shorten(before, after)
            repeated[before, after] += 1
            if (count := repeated[before, after]) > 1:
                after += f"  # {count}"
            mutants.append(Mutant(place[0], fault.line, before, after, changed[place], place[1]))
    return sorted(mutants, key=lambda mutant: mutant.line)


def _shorten(before: str, after: str) -> tuple[str, str]:
    """Leave out what two long texts share, but for some words on both sides of the difference."""
    start = max(0, _count_shared(before, after) - _CONTEXT)
    start = before.rfind(" ", 0, start) + 1
    end = max(0, min(_count_shared(before[::-1], after[::-1]), len(before) - start) - _CONTEXT)
    end -= max(0, before.find(" ", len(before) - end) - (len(before) - end)) if end else 0

    def cut(text: str) -> str:
        return ("… " if start else "") + text[start : len(text) - end] + (" …" if end else "")

    return cut(before), cut(after)


def _count_shared(first: str, second: str) -> int:
    """Return the number of characters with which both begin."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


@dataclass(frozen=True)
class _Fault:
    """A node that takes the place of another: of `parent.field`, or of its item at `index`."""

    parent: ast.AST
    field: str
    index: int | None
    node: Any
    statement: ast.stmt
    line: int

    def apply(self) -> Any:
        """Put the node in its place; returns what was there."""
        kept = getattr(self.parent, self.field)
        if self.index is None:
            setattr(self.parent, self.field, self.node)
        else:
            here = [] if self.node is None else [self.node]
            setattr(self.parent, self.field, [*kept[: self.index], *here, *kept[self.index + 1 :]])
        return kept

    def restore(self, kept: Any) -> None:
        setattr(self.parent, self.field, kept)


def _list_faults(tree: ast.Module) -> Iterator[_Fault]:
    def visit(parent: ast.AST, statement: ast.stmt | None, inside: bool) -> Iterator[_Fault]:
        for field, value in ast.iter_fields(parent):
            if field in _NOT_RUN:
                continue
            for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if not isinstance(node, ast.AST):
                    continue
                here = node if isinstance(node, ast.stmt) else statement
                line = getattr(node, "lineno", getattr(parent, "lineno", 0))
                if inside and here:
                    for new in (*_mutate(node, parent, field), *([None] if _can_drop(node) else [])):
                        # A statement is shown by itself, the place of one that is dropped by what is around it.
                        shown: ast.stmt = _Shown(node, new) if isinstance(node, ast.stmt) else here
                        yield _Fault(parent, field, index, new, shown, line)
                yield from visit(node, here, inside or isinstance(node, _FUNCTIONS))

    yield from visit(tree, None, False)


class _Shown(ast.stmt):
    """A statement that is replaced as a whole: itself first, then the other."""

    def __init__(self, *shown: ast.AST | None) -> None:
        super().__init__()
        self.shown = list(shown)


def _unparse_head(statement: ast.AST) -> str:
    if isinstance(statement, _Shown):
        node = statement.shown.pop(0)
        return _unparse_head(node) if node else "pass"
    lines = ast.unparse(statement).splitlines()
    compound = isinstance(getattr(statement, "body", None), list)
    return next(line for line in lines if not line.startswith("@")) if compound else " ".join(lines)


def _can_drop(node: ast.AST) -> bool:
    # `where`, `why` and `fix` are messages; `strict` is for mistakes of callers that do not exist.
    return isinstance(node, ast.keyword) and node.arg not in (None, "where", "why", "fix", "strict")


def _mutate(node: ast.AST, parent: ast.AST, field: str) -> Iterator[ast.AST]:
    """Yield what may take the place of a node."""
    if isinstance(node, ast.expr):
        yield from _mutate_expression(node, parent)
        if field == "test" or (field == "ifs" and isinstance(parent, ast.comprehension)):
            single = isinstance(node, ast.Compare) and len(node.ops) == 1
            if not single and not isinstance(node, ast.UnaryOp):
                yield ast.UnaryOp(ast.Not(), node)
    elif isinstance(node, ast.Return) and node.value and ast.unparse(node.value) != "None":
        yield ast.Return(None)
    elif isinstance(node, ast.AugAssign):
        yield ast.AugAssign(node.target, _ARITHMETIC[type(node.op)](), node.value)
        yield ast.Pass()
    elif isinstance(node, ast.Continue):
        yield ast.Break()
    elif _is_effect(node):
        yield ast.Pass()


def _is_effect(node: ast.AST) -> bool:
    """Whether it is a statement that others do not need in order to run."""
    if isinstance(node, ast.Assign):
        return not isinstance(node.targets[0], ast.Name | ast.Tuple)
    return isinstance(node, ast.Raise | ast.Delete) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))


def _mutate_expression(node: ast.expr, parent: ast.AST) -> Iterator[ast.expr]:
    match node:
        case ast.Compare(left, ops, comparators):
            for i, op in enumerate(ops):
                for other in _COMPARISONS[type(op)]:
                    yield ast.Compare(left, [*ops[:i], other(), *ops[i + 1 :]], comparators)
        case ast.BinOp(left, op, right):
            # The operands of `|` may be types, of `%` a text: the first would be no expression, the second no number.
            yield ast.BinOp(left, _ARITHMETIC[type(op)](), right) if type(op) in _ARITHMETIC else node
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield operand
        case ast.Constant(value):
            yield from (ast.Constant(other) for other in _change_constant(value, parent))
        case ast.Name(name, ast.Load()) if name in _NAMES and isinstance(parent, ast.Call) and parent.func is node:
            yield ast.Name(_NAMES[name], ast.Load())
        case ast.Attribute(value, name, ast.Load()) if name in _ATTRIBUTES:
            yield ast.Attribute(value, _ATTRIBUTES[name], ast.Load())


def _change_constant(value: object, parent: ast.AST) -> Iterator[bool | int | float | str]:
    if isinstance(value, bool):
        # As an argument with a name, it is left out as well, which is mostly the same.
        yield from () if isinstance(parent, ast.keyword) else (not value,)
    elif isinstance(value, int):
        yield from (value + 1, value - 1)
    elif isinstance(value, float):
        yield 2 * value or 1.0
    elif isinstance(value, str) and isinstance(parent, ast.Compare | ast.Subscript | ast.Dict | ast.MatchValue):
        yield f"XX{value}"


def _read_functions(module: types.CodeType) -> dict[tuple[str, int], types.CodeType]:
    """Return the code of the outermost functions by qualified name and first line."""
    found: dict[tuple[str, int], types.CodeType] = {}
    for code in module.co_consts:
        if isinstance(code, types.CodeType):
            if code.co_flags & 0x02:  # CO_NEWLOCALS: a function; the body of a class has none
                found[code.co_qualname, code.co_firstlineno] = code
            else:
                found |= _read_functions(code)
    return found
