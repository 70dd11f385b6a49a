"""What tests of whole commands share."""

from tests.operators import operators_parsed_once

__all__ = ["operators_parsed_once"]
