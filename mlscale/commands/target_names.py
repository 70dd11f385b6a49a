"""Names of export targets in `approved=`: one that no server can approve is an error before anything is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module

from mlscale.config.names.suggest import find_nearest
from mlscale.config.schema.roots import find_roots
from mlscale.errors import MLScaleError, raise_all


def check_target_names(names: Sequence[str], also: Iterable[str] = ()) -> None:
    """Check that each name is one of an export target, and of one with a server.

    Args:
        names: the value of `approved`.
        also: names of targets that may not be installed on this machine.

    Raises:
        MLScaleError: all that are not, with the nearest name.
    """
    # Without `none`, which names none of them.
    options = dict.fromkeys(option for option in find_roots().groups.get("target", ()) if option != "none")
    serverless = {option for option in options if _has_no_server(option)}
    known = [name for name in {**options, **dict.fromkeys(also)} if name not in serverless]
    raise_all(
        [
            _build_serverless_error(name, names) if name in serverless else _build_unknown_error(name, names, known)
            for name in names
            if name not in known
        ]
    )


def _build_unknown_error(name: str, names: Sequence[str], known: Sequence[str]) -> MLScaleError:
    near = find_nearest(name, known)
    corrected = [near if near and other == name else other for other in names]
    value = f"[{','.join(corrected)}]" if len(corrected) > 1 else corrected[0]
    return MLScaleError(
        f"unknown export target '{name}'",
        where="approved",
        why=f"the targets with a server are {', '.join(known)}",
        # Without a near name there is nothing to type that was meant.
        fix=f"approved={value}" if near else f"approved={known[0]}, or another one of them",
    )


def _has_no_server(name: str) -> bool:
    """Return whether a target that is installed here has no server that could approve it."""
    from omegaconf import OmegaConf

    from mlscale.targets import Target

    if (file := find_roots().files.get("target", {}).get(name)) is None:
        return False
    module, _, attribute = str(OmegaConf.select(OmegaConf.load(file), "_target_")).rpartition(".")
    try:
        made = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError):  # what it is built of reports that itself
        return False
    return getattr(made, "start_server", None) is Target.start_server


def _build_serverless_error(name: str, names: Sequence[str]) -> MLScaleError:
    others = [other for other in names if other != name]
    return MLScaleError(
        f"the target '{name}' has no server that mlscale can start",
        where="approved",
        why="so no version can be approved by one",
        fix=f"approved=[{','.join(others)}]" if others else "approved=onnx, or another target with a server",
    )
