"""Versions of models: immutable, named by what they hold, with aliases that move. The folder here is the truth.

`LocalRegistry` is all there is to it: a folder, no server. Other registries mirror it.
"""

from mlscale.registry.local import LocalRegistry, Published
from mlscale.registry.version import File, Kind, Version

__all__ = ["File", "Kind", "LocalRegistry", "Published", "Version"]
