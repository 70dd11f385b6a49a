"""Read the code of mlscale/ into what `measure_names` counts: functions, classes, names, texts, comments."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scripts.naming_rules import FIXED_NAMES

_PRAGMA = re.compile(r"#\s*(?:noqa|type:|ruff:|mypy:|pragma:|!|fmt:)")
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_LAYOUT = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER)


@dataclass(frozen=True)
class Place:
    """A line of a file with the text that is meant."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        """`mlscale/cli.py:12: name`."""
        return f"{self.path}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Function:
    """A function whose name is ours to choose; leading underscores are taken off."""

    path: str
    line: int
    name: str
    returns_nothing: bool


@dataclass
class Code:
    """What the modules below a root hold.

    Attributes:
        names: every name that is defined: modules, classes, functions, arguments, variables, attributes.
        texts: strings that are neither docstrings nor keys.
        arguments: how many arguments are annotated.
        any_arguments: those among them that are annotated `Any`, and nothing more.
        lines: by module, lines that hold code, docstrings left out.
        comments: by module, lines of comment, those for tools left out.
        lengths: of each function, from `def` to its last line.
        tokens: by module, of Python's tokenizer, without docstrings, comments and layout.
    """

    root: Path
    functions: list[Function] = field(default_factory=list)
    docstrings: list[Place] = field(default_factory=list)
    classes: list[Place] = field(default_factory=list)
    modules: list[Place] = field(default_factory=list)
    names: list[Place] = field(default_factory=list)
    texts: list[Place] = field(default_factory=list)
    any_arguments: list[Place] = field(default_factory=list)
    arguments: int = 0
    lines: dict[str, int] = field(default_factory=dict)
    comments: dict[str, int] = field(default_factory=dict)
    lengths: list[tuple[Place, int]] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=dict)


def read_code(root: Path, folder: str = "mlscale") -> Code:
    """Read every module below a folder of `root`."""
    code = Code(root)
    for path in sorted((root / folder).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        _read_module(code, path.relative_to(root).as_posix(), source)
    return code


def _read_module(code: Code, path: str, source: str) -> None:
    tree = ast.parse(source)
    module = Path(path).stem
    code.modules.append(Place(path, 1, module))
    code.names.append(Place(path, 1, module if module != "__init__" else Path(path).parent.name))
    docstrings = list(_docstring_nodes(tree))
    code.docstrings += [Place(path, node.lineno, str(node.value)) for node in docstrings]
    for node in ast.walk(tree):
        if isinstance(node, _Function):
            _read_function(code, path, node)
        elif isinstance(node, ast.ClassDef):
            code.classes.append(Place(path, node.lineno, node.name))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            code.texts.append(Place(path, node.lineno, node.value))
        code.names += [Place(path, getattr(node, "lineno", 1), name) for name in _defined_names(node)]
    _count_lines(code, path, source, docstrings)


def _docstring_nodes(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield the docstrings of modules, classes and functions, and the texts below an assignment that document it."""
    for node in ast.walk(tree):
        body = getattr(node, "body", [])
        for statement in body if isinstance(body, list) else ():
            constant = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                yield constant


def _read_function(code: Code, path: str, node: _Function) -> None:
    length = (node.end_lineno or node.lineno) - node.lineno + 1
    code.lengths.append((Place(path, node.lineno, f"{node.name}, {length} lines"), length))
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    for argument in arguments:
        if argument is None or argument.annotation is None:
            continue
        code.arguments += 1
        if ast.unparse(argument.annotation) == "Any":
            code.any_arguments.append(Place(path, argument.lineno, f"{node.name}({ast.unparse(argument)})"))
    decorators = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
    is_dunder = node.name.startswith("__") and node.name.endswith("__")
    is_property = decorators & {"property", "cached_property", "setter"}
    if not is_dunder and not is_property and not FIXED_NAMES.fullmatch(node.name):
        nothing = node.returns is not None and ast.unparse(node.returns) in ("None", "NoReturn")
        code.functions.append(Function(path, node.lineno, node.name.strip("_"), nothing))


def _defined_names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ClassDef | _Function):
        yield node.name
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.attr
    elif isinstance(node, ast.alias) and node.asname:
        yield node.asname


def _count_lines(code: Code, path: str, source: str, docstrings: list[ast.Constant]) -> None:
    documented = {line for node in docstrings for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    lines, comments, tokens = set(), 0, 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments += not _PRAGMA.match(token.string)
        elif token.type not in _LAYOUT:
            lines |= set(range(token.start[0], token.end[0] + 1))
            tokens += token.start[0] not in documented
    code.lines[path], code.comments[path], code.tokens[path] = len(lines - documented), comments, tokens
