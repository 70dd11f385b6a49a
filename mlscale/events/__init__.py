"""What was predicted, and what was right: append-only Parquet, bounded, whole whenever a process is killed.

`store.EventStore` is all there is to it. Contracts 'event' and 'label'; needs pyarrow.
"""
