"""Rendezvous for the ranks of one machine: a store in the launching process, without an election.

torch's own c10d rendezvous elects a node among several. It does so for a single node, too, in nine steps of which each
reads the source files of the call stack (`inspect.stack`): a quarter of a second before the first rank is forked.
"""

from __future__ import annotations

from datetime import timedelta

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # public, but not listed
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)

BACKEND = "mlscale"
_HOST = "localhost"


class SingleNodeRendezvous(RendezvousHandler):
    """A rendezvous of a single agent, at a free port that the system chooses."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._store: TCPStore | None = None

    def get_backend(self) -> str:
        return BACKEND

    @property
    def use_agent_store(self) -> bool:
        """True: ranks use the agent's store. Its port is open already, so no process can take it before rank 0 does."""
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        if self._store is None:
            # Port 0: the system picks a free one, so that several runs can start at once.
            self._store = TCPStore(
                _HOST, 0, is_master=True, timeout=timedelta(minutes=10), wait_for_workers=False, multi_tenant=True
            )
        bootstrap = RendezvousStoreInfo(_HOST, self._store.port)
        return RendezvousInfo(PrefixStore(self._run_id, self._store), 0, 1, bootstrap)

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        pass

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return self._run_id

    def shutdown(self) -> bool:
        return True


def _create_handler(parameters: RendezvousParameters) -> RendezvousHandler:
    return SingleNodeRendezvous(parameters.run_id)


rendezvous_handler_registry.register(BACKEND, _create_handler)
