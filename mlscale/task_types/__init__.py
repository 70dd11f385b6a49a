"""Task types: how predictions of a kind of work are measured, compared, shown and written, each defined once.

`task_type` has the interface, one module each of the built-in types, `registry` finds one by name, `reports` has what
`mlscale evaluate` shows. Importing a type imports numpy and no torch.
"""
