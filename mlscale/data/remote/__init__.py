"""Shards in object stores and on web servers: found, downloaded once into a bounded cache, and read from there."""
