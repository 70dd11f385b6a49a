"""The limits of a config from an artefact: anybody may have written it, and `_target_` calls any function by name."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from mlscale.config.schema.roots import get_shipped_folder
from mlscale.config.signatures import source_names as source
from mlscale.errors import MLScaleError

# Exact forms, not beginnings of names: `torch.nn.functional.torch.hub.load` begins well.
_ALLOWED = re.compile(
    r"mlscale\.(data|tasks|train\.(callbacks|loggers|strategies))\.\w+"
    r"|mlscale\.(registry|compress)\.[A-Z]\w*"
    r"|torch\.(nn|optim|optim\.lr_scheduler)\.[A-Z]\w*"
    r"|torchvision\.models\.\w+|torchvision\.transforms\.(v2\.)?[A-Z]\w*"
    r"|torchmetrics\.(\w+\.)?[A-Z]\w*"
    r"|(pytorch_lightning|lightning\.pytorch)\.(Trainer|(callbacks|loggers|strategies)\.[A-Z]\w*)|lightning\.Trainer"
)

_TARGET = re.compile(r"^\s*_target_:\s*([\w.]+)\s*(?:#.*)?$", re.MULTILINE)
_RESOLVER = re.compile(r"\$\{\s*([\w.]+)\s*:")
_REFERENCE = re.compile(r"\$\{oc\.env:\w+\}|\$\{oc\.decode:\$\{oc\.env:MLSCALE_SECRET_\w+\}\}")  # wholly the user's own
_SECRET = re.compile(r"\$\{oc\.decode:\$\{oc\.env:MLSCALE_SECRET_\w+\}\}")  # a number that was moved out


def find_distrusted(config: object, run: Path, typed: Collection[str] = (), *, doubt: str = "") -> list[MLScaleError]:
    """Return the problems that forbid using the frozen `config` of the folder `run` unread, all at once.

    Args:
        config: plain containers, interpolations kept.
        run: its folder. Code in it, or next to it, is not the user's own.
        typed: keys that the user sets on the command line: those words are theirs.
        doubt: why it is not proven that this user created the run.
    """
    problems, at = [], run / "config.yaml"
    _problem = partial(_create_trust_error, doubt)
    for path, text in _iterate_recipients(config):
        if not _REFERENCE.fullmatch(text) and path not in typed:
            problems.append(_problem("the run's config may not notify others, or start programs", f"{at}: {path}"))
    for path, key, value in _iterate_config_leaves(config, ""):
        if key == "_target_" and not _is_allowed(str(value), run):
            problems.append(_problem(f"the run's config may not build {value}", f"{at}: {path}"))
        elif isinstance(value, str) and (names := _find_resolvers(value)):
            problems.append(_problem(f"the run's config may not compute values by {names[0]}", f"{at}: {path}"))
        elif path.startswith("data.allow") and value and "data.allow" not in typed:
            problems.append(_problem(f"the run's data may not {_ALLOWS.get(value, value)}", f"{at}: {path}"))
    return problems


def _iterate_recipients(config: object) -> Iterator[tuple[str, str]]:
    """Yield the recipients of notices, by key path: an address may carry any secret of the environment away."""
    nodes = config.get("callbacks") if isinstance(config, dict) else None
    for name, node in (nodes or {}).items():
        if isinstance(node, dict) and node.get("_target_") == "mlscale.train.callbacks.Notify":
            for key in ("webhook", "command", "mail.host"):
                first, _, second = key.partition(".")
                value = (node.get(first) or {}).get(second) if second else node.get(first)
                if value is not None:
                    yield f"callbacks.{name}.{key}", str(value)
            # One by one: each may be wholly a variable of the environment.
            services = node.get("apprise") or []
            for url in services if isinstance(services, list) else [services]:
                yield f"callbacks.{name}.apprise", str(url)


_ALLOWS = {"pickle": "unpickle members of shards", "pipe": "run shell commands"}


def _create_trust_error(doubt: str, what: str, where: str) -> MLScaleError:
    return MLScaleError(
        what,
        where=where,
        why=f"{doubt or 'the run may not be yours'}; of such a run only the classes of mlscale's own options, of torch "
        "and Lightning, and code of the current folder are trusted",
        fix="trust=true, once you have read its config.yaml"
        + (", or data.allow=[…] in your own words" if "data.allow" in where else ""),
    )


def _is_allowed(target: str, run: Path) -> bool:
    return bool(_ALLOWED.fullmatch(target)) or target in _list_shipped_targets() or _is_own_code(target, run)


@cache
def _list_shipped_targets() -> frozenset[str]:
    """Return the targets of the shipped options and recipes, such as `timm.create_model`; the user's own folders don't
    count.
    """
    files = (file for name in ("conf", "recipes") for file in get_shipped_folder(name).rglob("*.yaml"))
    return frozenset(target for file in files for target in _TARGET.findall(file.read_text(encoding="utf-8")))


def _find_resolvers(value: str) -> list[str]:
    """Return the resolvers in a text, except `oc.env`: `oc.create` makes nodes, which may have a `_target_`."""
    return [] if _SECRET.fullmatch(value) else [name for name in _RESOLVER.findall(value) if name != "oc.env"]


def _is_own_code(target: str, run: Path) -> bool:
    """Return whether the code is in the user's working folder, and neither in the run's folder nor around it."""
    here = Path.cwd()
    if target.startswith("__main__."):
        return _is_session_class(target)
    try:
        source_object = source.find_object(target)
    except Exception:  # compiled, absent, or not a name: not the user's own
        return False
    path = source_object.path if isinstance(source_object, source.Module) else source_object.module.path
    if path is None or target.split(".")[0] == "mlscale":
        return False
    path, run = path.resolve(), run.resolve()
    inside = run.relative_to(here) if run.is_relative_to(here) else None
    # A run below the working folder, such as runs/x: code next to it (runs/evil.py) came with it, so the whole first
    # folder of its path is not trusted.
    apart = inside is None or (inside.parts and not path.is_relative_to(here / inside.parts[0]))
    return path.is_relative_to(here) and "site-packages" not in path.parts and bool(apart)


def _is_session_class(target: str) -> bool:
    """Return whether the target is a class of the notebook or script that runs: not an imported one, and not a
    function.
    """
    name = target.removeprefix("__main__.")
    member = vars(sys.modules["__main__"]).get(name)
    # Imported names are in `__main__` too: after `from subprocess import Popen` a config must not build it by
    # `__main__.Popen`.
    return isinstance(member, type) and (member.__module__, member.__qualname__) == ("__main__", name)


def _iterate_config_leaves(node: object, path: str, key: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield (key path, nearest key, value) of every leaf."""
    if isinstance(node, dict):
        for name, child in node.items():
            yield from _iterate_config_leaves(child, f"{path}.{name}" if path else str(name), str(name))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _iterate_config_leaves(child, f"{path}[{index}]", key)
    else:
        yield path, key, node
