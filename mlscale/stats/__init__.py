"""Statistics, each once: tests, intervals, gates. Plain arrays in, numbers out.

Import from the modules: `ks`, `chi2`, `discoveries`, `intervals`, `paired`; scipy is imported by the functions.
"""
