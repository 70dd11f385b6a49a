"""Compare a servable's encoder with training's own pipeline, on the same raw samples: tensors, before any output.

The first column, channel or token that differs is named, with a likely cause: each cause predicts what the tensors
would be, and the one whose prediction is found is reported.
"""

from mlscale.export.encoder_parity.difference import Cause, EncoderDifference
from mlscale.export.encoder_parity.encoder_comparison import EncoderComparison

__all__ = ["Cause", "EncoderComparison", "EncoderDifference"]
