"""A multilayer perceptron: the baseline."""

from collections.abc import Sequence

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with ReLU between them, on the flattened input.

    Args:
        in_features: values of one sample, C·H·W for images; None finds it from the first batch.
        num_classes: logits per sample.
        hidden: the width of each hidden layer; an empty list gives a linear classifier.
    """

    def __init__(self, in_features: int | None, num_classes: int, hidden: Sequence[int] = (128,)) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        width = in_features
        for out in (*hidden, num_classes):
            layers += [nn.LazyLinear(out) if width is None else nn.Linear(width, out), nn.ReLU()]
            width = out
        # Without the last ReLU: logits may be negative.
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, float (n, num_classes), for x, float (n, …)."""
        logits: Tensor = self.layers(x)
        return logits
