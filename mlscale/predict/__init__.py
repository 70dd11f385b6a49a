"""Batch scoring: every input once, whatever is killed on the way.

`inputs` says what there is to score and reads it, `models` answers, `score` walks through a rank's parts, `parts`
commits them by rename and knows which are done.
"""
