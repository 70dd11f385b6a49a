"""Warm-up requests: raw samples and their recorded answers, which a servable must repeat before it serves.

They are in `warmup/` of a servable: `warmup.json`, and a file for each sample that JSON can't hold. They are read with
numpy alone, as the rest of the folder, whose digests `servable.load` has verified.
"""

from mlscale.export.warmup.answer_comparison import check_warmup
from mlscale.export.warmup.warmup_requests import WARMUP, WarmupRequest, WarmupRequests, read_warmup
from mlscale.export.warmup.write_warmup import write_warmup

__all__ = ["WARMUP", "WarmupRequest", "WarmupRequests", "check_warmup", "read_warmup", "write_warmup"]
