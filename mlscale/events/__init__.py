"""Stores predictions and their labels: append-only Parquet of bounded size, never corrupt when a process is killed.

`store.EventStore` is the whole interface. Contracts 'event' and 'label'; needs pyarrow.
"""
