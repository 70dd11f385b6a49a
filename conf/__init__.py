"""Shipped configuration groups, as a package so that Hydra finds them in a wheel and in a checkout."""
