"""Complete commands, references, groups and their options, and keys in a shell; imports neither Hydra nor torch.

`mlscale completion bash` prints a script that calls `mlscale completion query -- WORDS…` at every press of the tab key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from mlscale.commands import COMMANDS
from mlscale.commands.command import Action, register_commands
from mlscale.commands.completion import COMMAND
from mlscale.commands.options import read_options
from mlscale.config.schema.documented_fields import read_option_files as read_fields
from mlscale.config.schema.model_arguments import MODEL, REF, REFERENCES
from mlscale.config.schema.roots import COMMAND_BASES, Roots, find_roots
from mlscale.contracts.output_document import Answer, print_answer
from mlscale.errors import Exit, MLScaleError
from mlscale.runs.find import LAST, find_run_folders
from mlscale.versions import LocalRegistry

FLAGS = ("--cfg", "--config-dir", "--help", "--hydra-help", "--info", "--multirun", "--resolve")
_MAX_RUNS_OFFERED = 20  # runs that are offered before anything of them is typed
_OVERRIDE = re.compile(r"(?P<sign>\+\+|\+|~)?(?P<key>[^=]*)(?P<equals>=)?(?P<value>.*)", re.DOTALL)

BASH = """\
# eval "$(mlscale completion bash)", in ~/.bashrc
_mlscale() {
  local line=${COMP_LINE:0:COMP_POINT} IFS=$' \\t\\n'
  local -a words
  read -ra words <<< "$line"
  case $line in *[[:space:]]) words+=("") ;; esac
  local word=${words[${#words[@]}-1]}
  IFS=$'\\n'
  COMPREPLY=($("$1" completion query -- "${words[@]:1}" 2>/dev/null))
  # readline replaces only what follows the last = or :
  local kept=${word%"${word##*[=:]}"}
  COMPREPLY=("${COMPREPLY[@]#"$kept"}")
  case ${COMPREPLY[0]-} in *[=.]) type compopt >/dev/null 2>&1 && compopt -o nospace 2>/dev/null ;; esac
  return 0
}
complete -o default -F _mlscale mlscale
"""
ZSH = """\
# eval "$(mlscale completion zsh)", in ~/.zshrc after compinit
_mlscale() {
  local -a found
  found=(${(f)"$("$words[1]" completion query -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)"})
  (( $#found )) || { _files; return }
  compadd -S '' -- ${(M)found:#*[=.]}
  compadd -- ${found:#*[=.]}
}
compdef _mlscale mlscale
"""
FISH = """\
# mlscale completion fish > ~/.config/fish/completions/mlscale.fish
function __mlscale_complete
    set -l words (commandline -opc) (commandline -ct)
    mlscale completion query -- $words[2..-1] 2>/dev/null
end
complete -c mlscale -f -a '(__mlscale_complete)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def main(argv: Sequence[str]) -> int:
    """Run `mlscale completion bash|zsh|fish`, or the query of their scripts; return the exit code.

    Raises:
        MLScaleError: any other word.
    """
    # Not in the help: only the scripts call it. After `--` come the words as typed, flags included.
    if argv[:2] == ["query", "--"]:
        print("\n".join(complete_words(argv[2:], find_roots())))
        return int(Exit.DONE)
    options = read_options("completion", COMMAND.actions, argv)
    shell = options.shell
    if shell not in SCRIPTS:
        raise MLScaleError(
            f"no completion for the shell '{shell}'",
            where="command line: mlscale completion",
            why=f"shells: {', '.join(SCRIPTS)}",
            fix='eval "$(mlscale completion bash)"',
        )
    answer = Answer("completion", {"shell": shell, "script": SCRIPTS[shell]}, [SCRIPTS[shell].removesuffix("\n")])
    return print_answer(answer, options.output)


def complete_words(words: Sequence[str], roots: Roots) -> list[str]:
    """Return the completions of the last of the words after `mlscale`, sorted; "" means that a new word begins."""
    *before, word = words or [""]
    register_commands(COMMANDS)
    # `train` is the default command, so its overrides are completed without a command, too.
    command = before[0] if before and before[0] in COMMANDS else "train"
    actions = COMMANDS[command].actions
    candidates: list[str] = []
    if not before:
        candidates = [*COMMANDS, *_complete_override(word, command, roots)]
    elif not actions:
        candidates = [
            *(_list_references(command, word) if len(before) == 1 else ()),
            *_complete_override(word, command, roots),
        ]
    elif len(before) == 1 and "" not in actions:
        candidates = list(actions)
    elif action := actions.get("") or actions.get(before[1]):
        candidates = [*_complete_action_keys(action, word), *_list_arguments(command, before, roots)]
        if action.overrides:  # of the config of a working command: `mlscale config show optimizer=…`
            composed = [typed.removeprefix("command=") for typed in before if typed.startswith("command=")]
            known = composed[-1] if composed and composed[-1] in COMMAND_BASES else "train"
            candidates += _complete_override(word, known, roots)
    # A set, because several sources may yield the same word.
    return sorted({candidate for candidate in candidates if candidate.startswith(word)})


def _complete_action_keys(action: Action, word: str) -> Iterator[str]:
    """Yield the keys of a command that composes no config; once a key is typed, its values."""
    typed, sign, _ = word.partition("=")
    for key in action.keys:
        values = ("true", "false") if key.type is bool else key.choices
        values = tuple(COMMAND_BASES) if key.name == "command" else values
        if not sign:
            yield f"{key.name}="
        elif key.name == typed:
            yield from (f"{typed}={value}" for value in values)


def _list_arguments(command: str, before: Sequence[str], roots: Roots) -> Sequence[str]:
    """Return the names that a command takes as an argument without a key."""
    if command == "completion":
        return list(SCRIPTS) if len(before) == 1 else []
    if command == "recipes":
        return roots.groups.get("recipe", ()) if before[1] != "ls" else ()
    if command == "runs":
        return ["last"] if before[1] != "ls" else []
    if command == "versions" and before[1] != "sync":
        return ["last"] if before[1] == "add" else LocalRegistry().list_references()
    return []


def _complete_override(word: str, command: str, roots: Roots) -> Iterator[str]:
    if word.startswith("-"):
        yield from FLAGS
        return
    match = _OVERRIDE.fullmatch(word)
    assert match is not None  # every part may be empty
    sign, key = match["sign"] or "", match["key"]
    # `base` is chosen by the command, never typed.
    groups = {group: options for group, options in roots.get_command_groups(command).items() if group != "base"}
    fields = read_fields(root.path for root in roots.roots)
    if match["equals"] and command in REFERENCES and key in (REF, "against"):
        yield from (f"{sign}{key}={reference}" for reference in _list_references(command, match["value"]))
    elif match["equals"]:
        options = _complete_list_value(match["value"], groups.get(key, ()))
        yield from (f"{sign}{key}={value}" for value in options)
    elif "." in key:
        node = key.split(".")[0]
        options_of_node = (option for option in fields.options if option.package.split(".")[0] == node)
        yield from (f"{sign}{item.path}=" for option in options_of_node for item in option.fields)
    else:
        yield from (f"{sign}{group}=" for group in groups)
        nodes = {option.package.split(".")[0] for option in fields.options if option.package and option.group in groups}
        # Ends in a dot, after which the next tab completes the keys of the node.
        yield from (f"{sign}{node}." for node in nodes)
        yield from (f"{sign}{path}=" for path in fields.get_command_fields(command) if not path.startswith("derived."))


def _list_references(command: str, word: str) -> Iterator[str]:
    """Yield references that the command may work on: the newest runs and the versions here; ids of runs once one is
    begun.
    """
    takes = REFERENCES.get(command)
    if takes is None or word.startswith("-"):
        return
    if takes.called != MODEL:
        yield from takes.examples
        return
    # The last part of a run's name is its id, which begins with the time: sorted by it, the newest comes first.
    names = sorted(
        (path.name for path in find_run_folders("runs")), key=lambda name: name.rpartition("-")[2], reverse=True
    )
    yield from (LAST, *names[:_MAX_RUNS_OFFERED], *LocalRegistry().list_references())
    # Ids are only offered once something is typed: they would double the list of names.
    if word:
        yield from (name.rpartition("-")[2] for name in names)


def _complete_list_value(value: str, options: Iterable[str]) -> list[str]:
    """Return options for one value, or for the next of a list: `[csv,` gives `[csv,wandb`."""
    head = value[: max(value.rfind("["), value.rfind(",")) + 1]
    taken = re.split(r"[\[,]", head)
    return [head + option for option in options if option not in taken]
