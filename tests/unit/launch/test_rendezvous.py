"""The one agent of a machine meets itself at a port that nobody else can take."""

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but not listed
from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousParameters, rendezvous_handler_registry

from mlscale.launch.rendezvous import BACKEND


def handler(run_id: str) -> RendezvousHandler:
    return rendezvous_handler_registry.create_handler(RendezvousParameters(BACKEND, "", run_id, 1, 1))


def test_a_rank_reaches_the_agent_s_store() -> None:
    met = handler("one").next_rendezvous()
    assert (met.rank, met.world_size) == (0, 1)
    where = met.bootstrap_store_info
    assert where is not None
    rank = TCPStore(where.master_addr, where.master_port, is_master=False)
    met.store.set("key", "value")
    assert rank.get("one/key") == b"value"


def test_two_runs_at_once_have_a_port_each() -> None:
    first, second = (handler(name).next_rendezvous().bootstrap_store_info for name in ("one", "two"))
    assert first is not None
    assert second is not None
    assert first.master_port != second.master_port


def test_a_second_round_meets_at_the_same_place() -> None:
    one = handler("one")
    assert one.next_rendezvous().bootstrap_store_info == one.next_rendezvous().bootstrap_store_info
