"""From argv to a command. Only this module decides exit codes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from itertools import takewhile
from types import ModuleType

from mlscale.api import make_user_code_importable
from mlscale.commands import COMMANDS, find_command, import_entry_point
from mlscale.commands.options import HELP_FLAGS
from mlscale.culprit import wrap_unforeseen_error
from mlscale.data.cache_folder import get_cache_dir
from mlscale.errors import Exit, MLScaleError
from mlscale.launch import garbage_collection as garbage
from mlscale.launch.early_stop import handle_first_signals
from mlscale.log_lines import find_typed_format, report_error, use_log_format
from mlscale.report.terminal import paint, replace_unprintable_letters, wrap_text
from mlscale.suggested_commands import add_typed_folder, use_typed_words


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code.

    Nothing heavy is imported before the config is known to be right: a typo is answered in under a second.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # With an explicit `argv` a test or a script calls this: its process is not mlscale's own.
    if argv is None:
        garbage.mark_own_process()
        handle_first_signals()
        replace_unprintable_letters(sys.stdout)
    make_user_code_importable()
    with use_log_format(find_typed_format(words)), use_typed_words(words):
        return _run_words(words)


def _run_words(words: list[str]) -> int:
    """Run a command; print its error and return its exit code."""
    try:
        return _dispatch_command(words)
    except MLScaleError as error:
        if not error.is_reported:
            _print_error(error, words)
        return int(error.exit)
    except KeyboardInterrupt:
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone: `mlscale config show | head`.
        sys.stdout = None
        # The exit code that a shell shows for a process ended by SIGPIPE. stdout is removed, or the interpreter would
        # report the same error again when it flushes at exit.
        return 128 + signal.SIGPIPE
    except Exception as error:
        wrapped = _find_lacking_names() or wrap_unforeseen_error(error)
        _print_error(wrapped, words, error)
        return int(wrapped.exit)


def _find_lacking_names() -> MLScaleError | None:
    """Return the error for private names that the installed libraries lack: those of Hydra are used before a command
    checks them.
    """
    from mlscale.config.names.private_names import check_private_names

    try:
        check_private_names(())
    except MLScaleError as lacking:
        return lacking
    return None


def _dispatch_command(words: list[str]) -> int:
    if words[:1] == ["help"] and words[1:2] and words[1] not in HELP_FLAGS:
        if not _is_command(words[1]):
            raise _load_help_texts().create_unknown_command_error(*words[1:])
        words = [*words[1:], "--help"]  # `mlscale help runs ls`
    if not words or words[0] in ("--help", "-h", "help", "--version", "-V"):
        texts, is_version = _load_help_texts(), words[:1] in (["--version"], ["-V"])
        print(texts.format_version() if is_version else wrap_text(texts.format_overview()))
        return int(Exit.DONE)
    # `train` is the default command: `mlscale +recipe=resnet`.
    command, rest = (words[0], words[1:]) if _is_command(words[0]) else ("train", words)
    if command == "train" and rest and rest[0].replace("-", "").isalpha() and not rest[0].startswith("-"):
        raise _load_help_texts().create_unknown_command_error(*rest)
    if not set(HELP_FLAGS) & set(rest):
        get_cache_dir()  # an address in its variable is refused by every command
    if COMMANDS[command].has_config:
        from mlscale.command import run_config_command

        return run_config_command(command, rest)
    # Words after `--` are data of the query that completion scripts make: `--help` among them is not for this command.
    if set(HELP_FLAGS) & set(takewhile(lambda word: word != "--", rest)):
        print(wrap_text(_load_help_texts().format_action_command_help(command, rest)))
        return int(Exit.DONE)
    return int(import_entry_point(command).main(rest))


def _is_command(word: str) -> bool:
    """Return whether a word names a command; overrides, flags and options of groups do not, and are not searched."""
    return word.replace("-", "").replace("_", "").isalnum() and word[0].isalpha() and find_command(word) is not None


def _load_help_texts() -> ModuleType:
    """Return the help texts, imported only when they are needed: a typo in a key is reported without them."""
    return import_module("mlscale.help")


def _print_error(error: MLScaleError, words: Sequence[str], cause: BaseException | None = None) -> None:
    """Print the error on stderr, secrets masked, and for `output=json` as a document; the traceback only on request."""
    from mlscale.secrets.mask import Masker

    masker = Masker.create_for_process()
    if os.environ.get("MLSCALE_TRACEBACK"):
        print(masker.mask_text("".join(traceback.format_exception(cause or error))), file=sys.stderr)
    # Arguments may hold bytes that are not text; a stream that is not Python's own refuses them.
    masked = error.mask_texts(
        lambda text: masker.mask_text(add_typed_folder(text)).encode("utf-8", "backslashreplace").decode()
    )
    with contextlib.suppress(BrokenPipeError):
        if "output=json" in {word.lstrip("+") for word in takewhile(lambda word: word != "--", words)}:
            from mlscale.contracts.output_document import print_document

            print_document("error", masked.build_document())
            sys.stdout.flush()
        if not report_error(masked.what, masked.build_document()["problems"]):
            print(f"{paint('error:', 'red', sys.stderr)} {masked}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
