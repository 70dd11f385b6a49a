"""Statistics, each once: tests, intervals, gates. Plain arrays in, numbers out."""
