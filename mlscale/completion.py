"""Shell completion of verbs, references, groups and their options, and keys; imports neither Hydra nor torch.

`mlscale completion bash` prints a script that asks `mlscale completion query -- WORDS…` at every press of the tab key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mlscale.commands import COMMANDS
from mlscale.commands.third_party import register_commands
from mlscale.config.checks.key_owners import OWNED, SUPPLIED
from mlscale.config.checks.value_types import BOOL
from mlscale.config.composition.reference_argument import MODEL, REF, REFERENCES
from mlscale.config.composition.roots import VERB_CONFIGS, Roots, find_roots
from mlscale.config.documented_fields import Fields, Option, read
from mlscale.config.signatures.signatures import Signature, signature
from mlscale.errors import MLScaleError
from mlscale.runs.find import LAST, run_paths
from mlscale.versions import LocalRegistry

SUB_COMMANDS = {
    "config": ("show", "check", "schema"),
    "recipes": ("ls", "show", "cp"),
    "runs": ("ls", "show", "resume", "checkpoints", "send", "diff", "rm"),
    "versions": ("ls", "show", "add", "promote", "rollback", "sync"),
}
"""What the looking verbs take as their first word."""
FLAGS = ("--cfg", "--config-dir", "--help", "--hydra-help", "--info", "--multirun", "--resolve")
HELP = """\
usage: mlscale completion bash|zsh|fish

Print a script that completes verbs, groups and their options, and keys.

examples:
  eval "$(mlscale completion bash)"                                    in ~/.bashrc
  eval "$(mlscale completion zsh)"                                     in ~/.zshrc, after compinit
  mlscale completion fish > ~/.config/fish/completions/mlscale.fish    once"""
_NEWEST = 20  # runs that are offered before anything of them is typed
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
    """`mlscale completion bash|zsh|fish`, and the query that their scripts make.

    Raises:
        MLScaleError: any other word.
    """
    if argv[:2] == ["query", "--"]:
        print("\n".join(complete(argv[2:], find_roots())))
    elif argv and argv[-1] in ("--help", "-h"):
        print(HELP)
    elif len(argv) == 1 and argv[0] in SCRIPTS:
        print(SCRIPTS[argv[0]], end="")
    else:
        raise MLScaleError(
            "completion takes the name of a shell",
            where="command line: mlscale completion",
            why=f"shells: {', '.join(SCRIPTS)}",
            fix='eval "$(mlscale completion bash)"',
        )
    return 0


def complete(words: Sequence[str], roots: Roots) -> list[str]:
    """What the last of the words after `mlscale` may become, sorted; "" when a new word begins."""
    *before, word = words or [""]
    register_commands(COMMANDS)
    verb = before[0] if before and before[0] in COMMANDS else "train"
    composed = verb if verb in VERB_CONFIGS else "train"  # `mlscale config show` composes what `mlscale train` does
    if not before:
        found = [*COMMANDS, "completion", *_overrides(word, composed, before, roots)]
    elif before[0] == "completion":
        found = list(SCRIPTS) if len(before) == 1 else []
    elif not COMMANDS[verb].working and len(before) == 1:
        found = list(SUB_COMMANDS.get(verb, ()))
    elif verb == "recipes":
        found = list(roots.groups.get("recipe", ()))
    elif verb == "runs":
        found = ["last"]
    elif verb == "versions":
        found = ["last"] if before[1] == "add" else LocalRegistry().references()
    else:
        found = [*(_references(verb, word) if len(before) == 1 else ()), *_overrides(word, composed, before, roots)]
    return sorted({candidate for candidate in found if candidate.startswith(word)})


def _overrides(word: str, verb: str, before: Sequence[str], roots: Roots) -> Iterator[str]:
    if word.startswith("-"):
        yield from FLAGS
        return
    match = _OVERRIDE.fullmatch(word)
    assert match is not None  # every part may be empty
    sign, key = match["sign"] or "", match["key"]
    groups = {group: options for group, options in roots.groups_of(verb).items() if group != "base"}
    fields = read(root.path for root in roots.roots)
    if match["equals"] and verb in REFERENCES and key in (REF, "against"):
        yield from (f"{sign}{key}={reference}" for reference in _references(verb, match["value"]))
    elif match["equals"]:
        options = _of_list(match["value"], groups[key]) if key in groups else _of_key(key, fields)
        yield from (f"{sign}{key}={value}" for value in options)
    elif "." in key:
        yield from (f"{sign}{path}=" for path in _paths(key.split(".")[0], before, fields))
    else:
        yield from (f"{sign}{group}=" for group in groups)
        nodes = {option.package.split(".")[0] for option in fields.options if option.package and option.group in groups}
        yield from (f"{sign}{node}." for node in nodes)
        yield from (f"{sign}{path}=" for path in fields.of_verb(verb) if not path.startswith("derived."))


def _references(command: str, word: str) -> Iterator[str]:
    """What the command may work on: the newest runs and the versions here; ids of runs once one is begun."""
    takes = REFERENCES.get(command)
    if takes is None or word.startswith("-"):
        return
    if takes.called != MODEL:
        yield from takes.examples
        return
    names = sorted((path.name for path in run_paths("runs")), key=lambda name: name.rpartition("-")[2], reverse=True)
    yield from (LAST, *names[:_NEWEST], *LocalRegistry().references())
    if word:
        yield from (name.rpartition("-")[2] for name in names)


def _of_list(value: str, options: Iterable[str]) -> list[str]:
    """Options for one value, or for the next of a list: `[csv,` gives `[csv,wandb`."""
    head = value[: max(value.rfind("["), value.rfind(",")) + 1]
    taken = re.split(r"[\[,]", head)
    return [head + option for option in options if option not in taken]


def _of_key(key: str, fields: Fields) -> list[str]:
    """The values of a switch, or of a key that takes one of a few."""
    kinds = {
        item.word: item.type for option in fields.options for item in option.fields if item.path == key and item.word
    }
    (kind,) = kinds.values() if len(kinds) == 1 else (None,)
    if kind is BOOL:
        return ["true", "false"]
    return [str(value) for value in _enumerated(kind.schema)] if kind else []


def _enumerated(schema: Mapping[str, Any]) -> list[object]:
    """The few values of a type, or of one that may be null as well."""
    either = schema.get("anyOf", [schema])
    return [value for one in either for value in one.get("enum", ())]


def _paths(node: str, before: Sequence[str], fields: Fields) -> Iterator[str]:
    """The keys below a node: those that its files name, and the other arguments of their targets."""
    for option in fields.options:
        if option.package.split(".")[0] != node or not _may_be_selected(option, before):
            continue
        yield from (item.path for item in option.fields)
        known = signature(option.target) if option.target else None
        if isinstance(known, Signature):
            supplied = SUPPLIED.get(option.group, frozenset())
            paths = [f"{option.package}.{name}" for name in known.named if name not in supplied]
            yield from (path for path in paths if path not in OWNED)


def _may_be_selected(option: Option, before: Sequence[str]) -> bool:
    """False for the other options of a group of which one was typed."""
    chosen = [word.lstrip("+").partition("=")[2] for word in before if word.lstrip("+").startswith(f"{option.group}=")]
    return not chosen or option.name in re.split(r"[\[\],]", chosen[-1])
