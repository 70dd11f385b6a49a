"""Changes of production: what the inputs become, or what the labels become.

`shift` has the interface, the modules with the forms of samples have the changes, `known_shifts` says which of them fit
a model, and `fit_shift` chooses a change that makes the model measurably worse.
"""
