"""Whether production still looks and performs as it did: detectors, one rule, one alert."""
