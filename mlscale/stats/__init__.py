"""Statistics, each once: tests, intervals, gates. Plain arrays in, numbers out.

Import from the modules: `bootstrap`, `calibration`, `chi2`, `discoveries`, `intervals`, `ks`, `paired`, `ranking`; the
functions import scipy.
"""
