"""Shipped recipes, a config directory of its own."""
