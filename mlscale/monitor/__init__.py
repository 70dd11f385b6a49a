"""Monitors a model in production: drift, accuracy, latency and failures, with one alert for each incident."""
