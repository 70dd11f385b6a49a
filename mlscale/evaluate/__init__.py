"""Evaluate a model: metrics with intervals, classes, slices, worst errors, calibration, comparison of two models.

`sample_collector` keeps the columns that the reports need of every sample; `task_report` adds slices and the worst
samples to the report of the task type; `model_comparison` compares two models.
"""
