"""Check that the installed libraries have what is used of their private parts, before a run starts."""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from mlscale.errors import Exit, MLScaleError, raise_all

_PACKAGES = {"pytorch_lightning": "pytorch-lightning", "lightning_fabric": "pytorch-lightning", "hydra": "hydra-core"}


def read_private_names() -> dict[str, Any]:
    """Return the table: `tested`, a version of each package that has all; by module `names`, `why`, `refuses`."""
    table: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
    return table


def check_private_names(used: Collection[str]) -> None:
    """Raise if a library lacks a private name that a run needs. Sources are read: importing torch takes seconds.

    Args:
        used: the command, and what of the run's options the table has: strategy=fsdp, data=dali.

    Raises:
        MLScaleError: one for each library and module, with the version to install.
    """
    problems = []
    table = read_private_names()
    tested = table.pop("tested")
    for module, row in table.items():
        if not set(row["refuses"]) <= set(used):
            continue
        # A name that is anywhere in the source counts as there: how it is bound differs between versions.
        source, package = _read_source(module), module.partition(".")[0]
        package = _PACKAGES.get(package, package)
        lacking = [name for name in row["names"] if not re.search(rf"\b{name}\b", source)]
        # What the name does may change while it stays: such a row works with one version only.
        is_other = not version(package).startswith(row.get("only", ""))
        if lacking or is_other:
            how = "another" if is_other else "no"
            problems.append(
                MLScaleError(
                    f"{package} {version(package)} has {how} {', '.join(lacking or row['names'])}",
                    where=module,
                    why=f"mlscale uses it, as no public way does: {row['why']}",
                    fix=f"pip install {package}=={tested[package]}",
                    exit=Exit.ENVIRONMENT,
                )
            )
    raise_all(problems)


def _read_source(module: str) -> str:
    root, *rest = module.split(".")
    spec = find_spec(root)
    if spec is None or spec.origin is None:
        return ""
    # The parts below a package are not imported to be found, as `find_spec` would do with a dotted name.
    path = Path(spec.origin).parent.joinpath(*rest)
    files = [path.with_suffix(end) for end in (".py", ".pyi")] + [path / f"__init__{end}" for end in (".py", ".pyi")]
    return "".join(file.read_text("utf-8") for file in files if file.is_file())
