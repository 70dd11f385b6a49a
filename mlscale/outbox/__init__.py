"""Documents on their way to a recipient that may be away: a folder with one file per item.

An item is on the disk before it is sent, and is removed once it has arrived: it is sent twice where the process is
killed in between, and never lost. Items are sent in order, by one process at a time. An item that can't be read, or
that is given up, is moved to the subfolder `failed`, is reported, and stays there until `restore_failed`.
"""

from mlscale.outbox.item_queue import ItemRefusedError, Outbox, OutboxItem, OutboxReport, RetryPolicy

__all__ = ["ItemRefusedError", "Outbox", "OutboxItem", "OutboxReport", "RetryPolicy"]
