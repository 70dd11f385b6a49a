"""Versions of models: immutable, identified by their content, with movable aliases. The local folder is the source of
truth.

`LocalRegistry` is a registry in a folder, without a server. `WandbRegistry` is one that W&B mirrors.
"""

from mlscale.versions.local_registry import LocalRegistry, Published
from mlscale.versions.version_record import File, Kind, Version
from mlscale.versions.wandb_mirror import WandbRegistry, open_registry

__all__ = ["File", "Kind", "LocalRegistry", "Published", "Version", "WandbRegistry", "open_registry"]
