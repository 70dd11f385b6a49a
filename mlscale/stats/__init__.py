"""Statistical tests and intervals, from plain arrays to numbers.

Import from the modules: `bootstrap`, `calibration`, `chi2`, `discoveries`, `intervals`, `ks`, `paired`, `ranking`; the
functions import scipy.
"""
