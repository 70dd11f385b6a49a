"""What a model is worth: figures with intervals, classes, slices, worst errors, calibration, two models side by side.

`gather` keeps of every sample what the judges need; `judge` opens the one of a task's kind; `compare` takes two.
"""
