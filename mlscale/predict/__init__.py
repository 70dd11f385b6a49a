"""Batch scoring: every input is scored once, also if processes are killed.

`inputs` lists and reads the inputs, `batch_models` predicts, `score_parts` processes the parts of a rank, `part_files`
commits them by rename and lists those that are done.
"""
