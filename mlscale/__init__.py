"""mlscale: one YAML recipe, from proof of concept to production."""

__version__ = "0.1.0"
