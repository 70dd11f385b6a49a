"""Summaries of raw samples as columns by name, which events hold and monitoring compares; numpy alone.

`input_summary` has the interface, `create_summary` the one of an encoder.
"""
