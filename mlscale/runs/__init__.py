"""The run folder, and what keeps secrets out of it."""

from mlscale.runs.find import find, list_runs, unfinished
from mlscale.runs.folder import RunFolder, new_path
from mlscale.runs.mask import Masker, MaskFilter, masked_output
from mlscale.runs.secrets import find_secrets, mask_overrides, protect
from mlscale.runs.snapshot import Snapshot, take
from mlscale.runs.sweep import start_sweep

__all__ = [
    "MaskFilter",
    "Masker",
    "RunFolder",
    "Snapshot",
    "find",
    "find_secrets",
    "list_runs",
    "mask_overrides",
    "masked_output",
    "new_path",
    "protect",
    "start_sweep",
    "take",
    "unfinished",
]
