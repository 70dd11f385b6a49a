"""Load on a server, by Locust, held against a service-level objective (SLO)."""
