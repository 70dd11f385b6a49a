"""The promotion gate: compares champion and challenger on the same samples, each as it is served."""
