"""Numbers as logs write them: also as texts, and with a percent sign."""

from __future__ import annotations


def parse_number_text(value: object, scale: float = 1.0) -> float:
    """Return a number times `scale`; a text that ends in a percent sign is a share already: 99.9% is 0.999.

    Raises:
        ValueError: it is not a number.
    """
    text = str(value).strip()
    is_percent = text.endswith("%")
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a number") from None
    # The sign has the scale: a `scale: 0.01` for the same column must not divide twice.
    return number / 100 if is_percent else number * scale
