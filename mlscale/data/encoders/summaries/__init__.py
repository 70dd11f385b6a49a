"""Summaries of raw samples as columns by name, which events hold and monitoring compares; numpy alone.

`input_summary` has the interface and those of rows, images and tensors, `text_summary` those of texts, and the choice.
"""
