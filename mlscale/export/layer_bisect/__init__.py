"""Find the first layer whose values differ between an exported ONNX model and the trained one.

`first_difference` has the search, `traced_model` torch's values and the module of each node, `matched_values` those
that the stored graph has as well, `cut_graph` its parts, computed from them, `part_changes` what is different in a
part, `quantization_scales` the scales of int8 graphs, `module_outputs` what torch.export traces otherwise.
"""

from __future__ import annotations

from mlscale.export.layer_bisect.first_difference import LayerDifference, find_first_difference

__all__ = ["LayerDifference", "find_first_difference"]
