"""The first argument of the commands that work on something trained: `mlscale evaluate last` is `ref=last`.

The keys that named a model before are refused here, each with the form that takes its place.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence

from mlscale.config.schema.model_arguments import REF, REFERENCES
from mlscale.errors import MLScaleError

_NAMES_A_FILE = re.compile(r".*(/|\.ckpt$)", re.DOTALL)


def add_reference_key(command: str, words: Sequence[str]) -> list[str]:
    """Return the words with the first one as `ref=…`, where the command takes a reference and it is one."""
    if words and is_reference(command, words):
        return [f"{REF}={words[0]}", *words[1:]]
    return list(words)


def is_reference(command: str, words: Sequence[str]) -> bool:
    """Return whether the first word names what the command works on: it has no `=`, and none follows it; or it is a
    path that exists, such as `runs/lr=0.1`.
    """
    word = words[0]
    if command not in REFERENCES or not word.strip() or word.startswith(("~", "-", "+")):
        return False
    if "=" in word:
        # A slash before the `=` distinguishes a path from an override; it must exist, for `a/b=c` can be a group's
        # option.
        return "/" in word.partition("=")[0] and os.path.exists(word)
    return words[1:2] != ["="]


def check_replaced_keys(command: str, words: Sequence[str]) -> Iterator[MLScaleError]:
    """Yield an error for each key that named a model before, or has no effect on one, with what to type."""
    takes = REFERENCES.get(command)
    if takes is None:
        return
    typed = {word: word.lstrip("+").partition("=")[::2] for word in words}
    keys = {key for key, _ in typed.values()}
    # A path in `checkpoint=` named the model where nothing else did; next to a reference it chooses a checkpoint of it.
    naming = set(takes.replaced)
    if takes.needs_weights and "checkpoint" in keys and not keys & {REF, *takes.replaced}:
        naming.add("checkpoint")
    for word, (key, value) in typed.items():
        if key in takes.replaced or (key in naming and _NAMES_A_FILE.match(value)):
            rest = [other for other, (name, _) in typed.items() if other != word and name not in (REF, *takes.replaced)]
            # A model that is named besides is meant: two would be refused.
            value = next((text for name, text in typed.values() if name == REF), value)
            yield MLScaleError(
                f"`mlscale {command}` takes no '{key}='",
                where=f"command line: {word}",
                why="what a command works on is its first argument, or ref=",
                fix=shlex.join(["mlscale", command, value or takes.examples[0], *rest]),
            )
        elif key == "compress" and command in _COMPRESS_NOTHING:
            named = words[0] if is_reference(command, words) else takes.examples[0]
            named = next((text for name, text in typed.values() if name == REF), named)
            why = "`mlscale compress` does; an export takes what that has kept, and compressed=false the checkpoint"
            fix = f"leave {word} out" if value == "none" else shlex.join(["mlscale", "compress", named, word])
            what, where = f"`mlscale {command}` compresses nothing", f"command line: {word}"
            yield MLScaleError(what, where=where, why=why, fix=fix)


_COMPRESS_NOTHING = ("evaluate", "export", "predict")
# What a command does not start without, besides a model: without a method there is nothing to compress by.
_NEEDED = {"compress": ("compress=int8",), "predict": ("input=<images, texts or a table>", "to=<a folder>")}


def create_no_reference_error(command: str, here: Sequence[str] = (), typed: Sequence[str] = ()) -> MLScaleError:
    """Return the error for a command without what it works on.

    Args:
        here: references to models that are here.
        typed: the words of the command line, which the fix repeats.
    """
    settings = [shlex.quote(word) for word in typed if not word.lstrip("+").startswith((f"{REF}=", "recipe="))]
    keys = {word.lstrip("+").partition("=")[0] for word in typed}
    needed = [word for word in _NEEDED.get(command, ()) if word.partition("=")[0] not in keys]
    examples = "\n".join(
        " ".join(["mlscale", command, example, *settings, *needed]) for example in here or REFERENCES[command].examples
    )
    if command == "loadtest":
        return MLScaleError("no server is named", where="command line", why="its address comes first", fix=examples)
    why = "a run, a version, a checkpoint or a servable's folder comes first"
    return MLScaleError("no model is named", where="command line", why=why, fix=examples)


def restate_command(error: MLScaleError, command: str, typed: Sequence[str]) -> None:
    """Give an error that suggests `ref=` another model the whole command: next to the word that was typed, `ref=` would
    name a second one.
    """
    nearest = error.fix.removeprefix(f"{REF}=").split("\n")[0]
    if error.fix.startswith(f"{REF}=") and "<" not in nearest:
        settings = [word for word in typed if not word.startswith(f"{REF}=")]
        error.fix = shlex.join(["mlscale", command, nearest, *settings])


def check_single_reference(command: str, words: Sequence[str]) -> Iterator[MLScaleError]:
    """Yield the error for a command that names what it works on twice, by its first argument and by `ref=`."""
    keys = [word for word in words if word.lstrip("+").startswith(f"{REF}=")]
    if keys and is_reference(command, words):
        where, fix = f"command line: {' '.join([words[0], *keys])}", f"mlscale {command} {shlex.quote(words[0])}"
        why = f"`mlscale {command}` works on one"
        yield MLScaleError(f"{len(keys) + 1} models are named", where=where, why=why, fix=fix)
