"""Versions of models: immutable, named by what they hold, with aliases that move. The folder here is the truth.

`LocalRegistry` is all there is to it: a folder, no server. `WandbRegistry` is one that W&B mirrors.
"""

from mlscale.versions.local_registry import LocalRegistry, Published
from mlscale.versions.version_record import File, Kind, Version
from mlscale.versions.wandb_mirror import WandbRegistry, opened

__all__ = ["File", "Kind", "LocalRegistry", "Published", "Version", "WandbRegistry", "opened"]
