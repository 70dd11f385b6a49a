"""Evaluate a model: metrics with intervals, classes, slices, worst errors, calibration, comparison of two models.

`sample_collector` keeps the columns that the reports need of every sample; `task_report` picks the report for the
task's kind; `model_comparison` compares two models.
"""
