"""Runs one retraining cycle ('turn'): window, challenger, paired test, promotion or rejection, journal."""
