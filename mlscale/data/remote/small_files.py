"""Small files next to remote shards, which need not be there: indexes and `dataset.json`."""

from __future__ import annotations

from mlscale.data.remote.remote_shard import RemoteAccess
from mlscale.data.remote.stores import Store
from mlscale.data.remote.transfers import Attempts, StatusError


def read_small_file(store: Store, address: str, access: RemoteAccess, where: str, most: int) -> bytes | None:
    """Return the content of a file that may be there; None if it is not, may not be read, or is larger than `most`."""
    attempts = Attempts(address, access.policy, access.counts, where)

    def read() -> bytes | None:
        parts: list[bytes] = []
        try:
            stat = store.read_stat(address)
            if 0 < stat.size <= most:
                store.stream_span(address, 0, stat.size, stat, lambda _, content: parts.append(content))
        # What may be missing may also be out of reach: who may read objects one by one may not list them.
        except (FileNotFoundError, PermissionError):
            return None
        except StatusError as error:
            if error.status < 500 and error.status != 429:
                return None
            raise
        return b"".join(parts) or None

    return attempts.call(read)
