"""The content of `import lightning as L` in a process of mlscale: the names of the package `lightning`, from its parts.

It is loaded as `lightning` by `mlscale.lightning_names`, and read instead of it by the static check of `_target_`s.
"""

import lightning_fabric as fabric
import pytorch_lightning as pytorch
from lightning_fabric import Fabric
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from pytorch_lightning.__version__ import version as __version__

__all__ = [
    "Callback",
    "Fabric",
    "LightningDataModule",
    "LightningModule",
    "Trainer",
    "__version__",
    "fabric",
    "pytorch",
    "seed_everything",
]
