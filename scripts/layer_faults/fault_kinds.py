"""Which faults are planted, each with the models that can have it."""

from __future__ import annotations

from functools import partial

from scripts.layer_faults.exported_cases import MODELS
from scripts.layer_faults.float_faults import (
    EPSILONS,
    plant_attention_scale,
    plant_batch_norm_epsilon,
    plant_bias,
    plant_cast,
    plant_half_weight,
    plant_resize,
    plant_weight,
)
from scripts.layer_faults.int8_faults import plant_activation_scale, plant_weight_scale, plant_zero_point
from scripts.layer_faults.planted_fault import Plant, plant_attribute, replace_value

CONVOLUTIONS = ["resnet", "resnet18 (torchvision)", "unet"]
ATTENTION = ["vit", "vit (timm)", "gpt"]
ALL = list(MODELS)

# Planted for each seed; of the others as many are drawn as make twelve.
REQUIRED: dict[str, tuple[list[str], Plant]] = {
    "weight": (ALL, plant_weight),
    "epsilon, layer": (
        [*ATTENTION, "table net"],
        plant_attribute(("LayerNormalization",), "epsilon", *(partial(replace_value, value) for value in EPSILONS)),
    ),
    "epsilon, batch": ([*CONVOLUTIONS, "mobilenet (torchvision)"], plant_batch_norm_epsilon),
    "resize mode": (["unet"], plant_resize),
    "attention scale": (ATTENTION, plant_attention_scale),
    "activation scale, int8": (CONVOLUTIONS, plant_activation_scale),
}
DRAWN: dict[str, tuple[list[str], Plant]] = {
    "weight scale, static int8": (CONVOLUTIONS, plant_weight_scale("static")),
    "weight scale, dynamic int8": ([*ATTENTION, "table net"], plant_weight_scale("dynamic")),
    "zero point, int8": (CONVOLUTIONS, plant_zero_point),
    "bias": (ALL, plant_bias),
    "weight in half precision": (ALL, plant_half_weight),
    "value in half precision": (ALL, plant_cast),
    "gelu": (ATTENTION, plant_attribute(("Gelu",), "approximate", lambda a: "none" if a == b"tanh" else "tanh")),
    "softmax axis": (ATTENTION, plant_attribute(("Softmax",), "axis", lambda _: -2)),
    "pooling": (["resnet18 (torchvision)", "unet"], plant_attribute(("MaxPool",), "dilations", lambda _: [2, 2])),
    "gemm factor": (ALL, plant_attribute(("Gemm",), "beta", lambda _: 0.5)),
    "hard sigmoid": (["mobilenet (torchvision)"], plant_attribute(("HardSigmoid",), "alpha", lambda _: 0.2)),
    "transposition": (["vit", "gpt"], plant_attribute(("Transpose",), "perm", lambda p: p and p[::-1])),
}
