"""Exports what a monitor has found to Prometheus and Grafana."""
