"""Names of export targets in `approved=`: a mistyped one is an error before anything is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mlscale.config.names.suggest import find_nearest
from mlscale.config.schema.roots import find_roots
from mlscale.errors import MLScaleError, raise_all


def check_target_names(names: Sequence[str], also: Iterable[str] = ()) -> None:
    """Check that each name is one of an export target.

    Args:
        names: the value of `approved`.
        also: names of targets that may not be installed on this machine.

    Raises:
        MLScaleError: all that are not, with the nearest name.
    """
    # Without `none`, which no server approves.
    options = [option for option in find_roots().groups.get("target", ()) if option != "none"]
    known = list(dict.fromkeys([*options, *also]))
    raise_all([_build_unknown_error(name, names, known) for name in names if name not in known])


def _build_unknown_error(name: str, names: Sequence[str], known: Sequence[str]) -> MLScaleError:
    near = find_nearest(name, known)
    corrected = [near if near and other == name else other for other in names]
    value = f"[{','.join(corrected)}]" if len(corrected) > 1 else corrected[0]
    return MLScaleError(
        f"unknown export target '{name}'",
        where="approved",
        why=f"the targets are {', '.join(known)}",
        # Without a near name there is nothing to type that was meant.
        fix=f"approved={value}" if near else f"approved={known[0]}, or another one of them",
    )
