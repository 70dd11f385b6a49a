"""The lineage of a challenger: the champion that it is to replace, and the tag of its run."""

from __future__ import annotations

from mlscale.errors import MLScaleError
from mlscale.versions import LocalRegistry, Version
from mlscale.versions.version_reference import CHAMPION

RETRAINED = "retrain"
"""The tag of a run that a cycle has trained."""


def require_champion(registry: LocalRegistry, version: Version) -> Version:
    """Return `version` if it is its model's champion.

    Raises:
        MLScaleError: it is not the champion, or its model has none.
    """
    # The alias may have moved since the version was resolved: read it now.
    number = registry.get_aliases(version.name).of.get(CHAMPION)
    if number == version.number:
        return version
    raise MLScaleError(
        f"{version.ref} is not the champion of {version.name}",
        where=f"ref={version.ref}",
        why=f"that is {version.name}:v{number}" if number else "there is none yet",
        fix=f"mlscale retrain {version.name}@champion" if number else f"mlscale versions promote {version.ref}",
    )
