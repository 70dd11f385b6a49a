"""Check for the packages of an extra before the work starts."""

from __future__ import annotations

from importlib.util import find_spec

from mlscale.errors import Exit, MLScaleError


def require_extra(extra: str, *packages: str) -> None:
    """Raise an error if one of `packages` is not installed.

    Raises:
        MLScaleError: some are not (exit code 5); with the command that installs the extra.
    """
    # Found without importing them: that may take seconds, and the caller does so on use.
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise MLScaleError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed",
            why=f"they come with the extra '{extra}'" if len(missing) > 1 else f"it comes with the extra '{extra}'",
            fix=f"pip install 'mlscale[{extra}]'",
            exit=Exit.ENVIRONMENT,
        )
