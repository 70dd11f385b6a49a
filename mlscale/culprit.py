"""Unforeseen errors in mlscale's own form: with the line of the user's code that raised it, if one did."""

from __future__ import annotations

import linecache
import os
import re
import traceback
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from mlscale.errors import Exit, MLScaleError

_PACKAGE_FOLDER = Path(__file__).resolve().parent
# A worker process of a loader sends its traceback as text, so its frames have to be parsed.
_FRAME = re.compile(r'^ *File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>\S+)', re.MULTILINE)
_SHARDED = "mixed torch.Tensor and DTensor"  # torch's words for an operation with a shard and a whole tensor
_TRACEBACK = "export MLSCALE_TRACEBACK=1, and start the command again: it shows how it came there"
_LIGHTNING = {"pytorch_lightning", "lightning_fabric", "lightning"}
_BY_TYPE = {"MisconfigurationException", "MisconfigurationError"}
_LACKING_HOOK = re.compile(r"No `(\w+)\(\)` method defined")
_IN_WORKER = "Original Traceback (most recent call last):"


def wrap_unforeseen_error(error: BaseException, where: str = "") -> MLScaleError:
    """Return the error to report for an exception without a message of mlscale.

    Args:
        where: the rank or the key path, for example, if known; the line is added.
    """
    what, prefix, own = summarize_error(error), f"{where}: " if where else "", find_user_line(error)
    if refused_at := _find_lightning_refusal(error):
        hook = _LACKING_HOOK.search(str(error))
        arguments = "self, batch, batch_idx" if hook and hook[1].endswith("_step") else "self"
        return MLScaleError(
            f"the module or its data has no {hook[1]}()" if hook else "Lightning refuses this module or setting",
            where=prefix + (own or refused_at),
            why=" ".join(str(error).split()),
            fix=f"def {hook[1]}({arguments}): …" if hook else _TRACEBACK,
        )
    if _SHARDED in what:
        return MLScaleError(
            "weights are used while they are sharded",
            where=prefix + (own or next(_iterate_lines(error), "")),
            why="strategy=fsdp gathers them in a step that all processes take, not for a call of the model",
            fix="strategy=ddp\ntrainer.strategy.predict_step(batch, index) in place of the call, on every process",
        )
    if not own and type(error).__name__ == "ConfigAttributeError":
        key = getattr(error, "full_key", "")  # of omegaconf
        why = "a run reads it, and a group or ~ has taken it out"
        return MLScaleError(f"the configuration has no '{key}'", where=prefix + key, why=why, fix=f"leave ~{key} out")
    if own:
        why = "your code raised it"
        return MLScaleError(what, where=prefix + own, why=why, fix=_TRACEBACK, exit=Exit.BUG)
    return MLScaleError(
        what,
        where=prefix + (next(_iterate_lines(error), "") or "mlscale, or a library that it called"),
        why="your code did not raise it, and it has no message of its own: a setting that does not fit the data, or a "
        "bug of mlscale",
        fix=_TRACEBACK,
        exit=Exit.BUG,
    )


def _find_lightning_refusal(error: BaseException) -> str:
    """Return the line of Lightning that refuses what a user has configured; "" for another error. Types that Python and
    torch raise, too, are Lightning's own where a `raise` in one of its files raised them.
    """
    last = next(reversed(traceback.extract_tb(error.__traceback__)), None)
    if last is None or not _LIGHTNING & set(Path(last.filename).parts):
        return ""
    is_own_type = any(kind.__name__ in _BY_TYPE for kind in type(error).__mro__)
    is_raised = isinstance(error, (ValueError, TypeError, RuntimeError)) and (last.line or "").startswith("raise ")
    return f"{Path(last.filename).name}:{last.lineno} of Lightning" if is_own_type or is_raised else ""


def find_user_line(error: BaseException) -> str:
    """Return the innermost line of the user's code that `error` passed through, `net.py:12, in forward`; else ""."""
    return next(_iterate_lines(error, own=True), "")


def find_innermost_call(calls: Iterable[tuple[str, int, str]], *, own: bool = False) -> str:
    """Return the first of these calls (file, line, function; innermost first) that is in the user's code, or else, but
    for `own`, of any.
    """
    all_calls = list(calls)
    users = [call for call in all_calls if _is_user_code(call[0])]
    chosen = users if own else [*users, *all_calls]
    return next((f"{_shorten_path(file)}:{line}, in {name}" for file, line, name in chosen), "")


def quote_line(where: str) -> str:
    """Return a place in the code, as of `find_innermost_call`, with the text of its line."""
    if line_match := re.match(r"(.+):(\d+), in ", where):
        where += f": {linecache.getline(str(Path(line_match[1]).absolute()), int(line_match[2])).strip()}"
    return where


def summarize_error(error: BaseException) -> str:
    """Return the error's type and first words; those of the original one where a loader's worker process raised it."""
    text = str(error)
    # torch's message holds the whole traceback of the worker: its last line is the original error.
    if _IN_WORKER in text:
        return text.strip().splitlines()[-1]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _iterate_lines(error: BaseException, *, own: bool = False) -> Iterator[str]:
    """Yield the lines that an error and its causes passed through, innermost first."""
    seen: BaseException | None = error
    while seen is not None:
        frames = [(frame.filename, frame.lineno, frame.name) for frame in traceback.extract_tb(seen.__traceback__)]
        if _IN_WORKER in str(seen):
            frames += [(match["file"], int(match["line"]), match["name"]) for match in _FRAME.finditer(str(seen))]
        # A file with a syntax error has no frame, for it never ran.
        if isinstance(seen, SyntaxError) and seen.filename and (not own or _is_user_code(seen.filename)):
            yield f"{_shorten_path(seen.filename)}:{seen.lineno}"
        for file, line, name in reversed(frames):
            if not own or _is_user_code(file):
                yield f"{_shorten_path(file)}:{line}, in {name}"
        seen = seen.__cause__


def _is_user_code(file: str) -> bool:
    path = Path(file)
    # `<string>` and `<frozen importlib>`: code without a file.
    if file.startswith("<") or {"site-packages", "dist-packages"} & set(path.parts):
        return False
    return not any(path.resolve().is_relative_to(folder) for folder in (_PACKAGE_FOLDER, *_list_library_folders()))


@cache
def _list_library_folders() -> tuple[Path, ...]:
    import sysconfig  # takes 3 ms, which only an unforeseen error needs

    return tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def _shorten_path(file: str) -> str:
    """Return the path relative to the working folder, or to the folder of packages."""
    path = Path(file)
    if path.is_relative_to(Path.cwd()):
        return os.path.relpath(path)
    for index, part in enumerate(path.parts):
        if part in ("site-packages", "dist-packages"):
            return "/".join(path.parts[index + 1 :])
    return file
