"""Measure an all-reduce over each link of an allocation: pairs of machines, or of processes on a single one."""

from __future__ import annotations

import json
import math
import socket
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from mlscale.commands.env.allocation_facts import ProcessFacts, gather_answers, wait_until

if TYPE_CHECKING:
    from torch import Tensor
    from torch._C._distributed_c10d import Backend
    from torch.distributed import Store  # type: ignore[attr-defined]  # public, but not listed

Pair = tuple[int, int]
PAYLOAD_BYTES = 1 << 20
_REPEATS = 5
# A process that waits for a core makes a link look slow for a moment; hardly ever both times.
_PASSES = 2
_CONNECT_SECONDS = 5.0
_SLOW_FACTOR = 3.0  # of a link or a machine over the others


def choose_link_ranks(facts: Mapping[int, ProcessFacts]) -> list[int]:
    """Return the ranks between which links are measured: one of each machine, or all of a single machine."""
    # In reverse, so that the first rank of a machine stands for it.
    hosts = {process.host: rank for rank, process in sorted(facts.items(), reverse=True)}
    return sorted(hosts.values()) if len(hosts) > 1 else sorted(facts)


def schedule_pairs(ranks: Sequence[int]) -> list[list[Pair]]:
    """Return rounds of disjoint pairs, so that every pair comes once (the circle method of tournaments)."""
    players: list[int | None] = [*ranks, *([None] if len(ranks) % 2 else [])]
    rounds = []
    for _ in range(len(players) - 1):
        half = len(players) // 2
        opposite = zip(players[:half], reversed(players[half:]), strict=True)
        rounds.append([(min(a, b), max(a, b)) for a, b in opposite if a is not None and b is not None])
        players.insert(1, players.pop())
    return rounds


def open_link_port(store: Store, rank: int) -> socket.socket:
    """Listen on a port of this machine's address, and make it known."""
    # Any free port: a job may not choose which ones are open between machines.
    listener = socket.create_server(("", 0))
    store.set(f"port/{rank}", json.dumps([_find_own_address(), listener.getsockname()[1]]))
    return listener


def find_unreachable(store: Store, rank: int, ranks: Sequence[int], timeout_s: float) -> list[int]:
    """Return the ranks whose port this process can't connect to."""
    return [other for other in ranks if other != rank and not _can_connect(store, other, timeout_s)]


def measure_links(store: Store, rank: int, ranks: Sequence[int], timeout_s: float) -> dict[Pair, float]:
    """Return the seconds of an all-reduce of 1 MiB over each link of this rank to a higher one, the fastest of several.

    Infinite for a link over which none was done within the time.
    """
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # public, but not listed

    times: dict[Pair, float] = {}
    silent: set[int] = set()
    rounds = schedule_pairs(ranks)
    for number, pairs in enumerate(rounds * _PASSES):
        for pair in pairs:
            if rank not in pair or times.get(pair) == math.inf:
                continue  # both ends know of a link that failed, and do not wait for it a second time
            own = PrefixStore(f"pass/{number // len(rounds)}", store)
            seconds = math.inf if silent & set(pair) else _measure_pair(own, rank, pair, timeout_s)
            times[pair] = min(times.get(pair, math.inf), seconds)
        # In rounds: a machine serves one link at a time, as they share its network card.
        store.set(f"round/{number}/{rank}", "")
        awaited = [other for other in ranks if other not in silent]
        silent |= set(awaited) - set(gather_answers(store, f"round/{number}", awaited, 2 * timeout_s))
    return {pair: seconds for pair, seconds in times.items() if rank == pair[0]}


def _measure_pair(store: Store, rank: int, pair: Pair, timeout_s: float) -> float:
    import torch

    # Where a training would have its gradients.
    payload = torch.zeros(PAYLOAD_BYTES // 4, device="cuda" if torch.cuda.is_available() else "cpu")
    try:
        group = _create_pair_group(store, rank, pair, timeout_s)
        return min(reduce_once(payload, group) for _ in range(_REPEATS))
    except RuntimeError:  # torch's own, for a connection that fails or takes too long
        return math.inf


def _create_pair_group(store: Store, rank: int, pair: Pair, timeout_s: float) -> Backend:
    """Return a group of two ranks, without a group of all: one that is out of reach would keep all from starting."""
    import torch
    from torch import distributed

    own = distributed.PrefixStore(f"pair/{pair[0]}/{pair[1]}", store)  # type: ignore[attr-defined]
    timeout = timedelta(seconds=timeout_s)
    if torch.cuda.is_available():
        options = distributed.ProcessGroupNCCL.Options()
        options._timeout = timeout
        return distributed.ProcessGroupNCCL(own, pair.index(rank), 2, options)
    return distributed.ProcessGroupGloo(own, pair.index(rank), 2, timeout)


def reduce_once(payload: Tensor, group: Backend) -> float:
    """Return the seconds of one all-reduce over a link."""
    import torch

    began = time.perf_counter()
    group.allreduce([payload]).wait()  # type: ignore[attr-defined]  # every backend has it, the stub's base has not
    if payload.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def publish_times(store: Store, rank: int, times: Mapping[Pair, float]) -> None:
    """Make the times of this rank's links known to rank 0."""
    store.set(f"links/{rank}", json.dumps([[*pair, seconds] for pair, seconds in times.items()]))


def parse_times(texts: Iterable[str]) -> dict[Pair, float]:
    """Return the times of all links that ranks have made known."""
    return {(first, last): seconds for text in texts for first, last, seconds in json.loads(text)}


def find_slow_ranks(times: Mapping[Pair, float]) -> list[int]:
    """Return ranks whose fastest link is slow compared with those of the others; none of two, which may both be it."""
    # A fair machine has at least one fast link: that to another fair one.
    fastest = {
        rank: min(seconds for pair, seconds in times.items() if rank in pair) for rank in {r for p in times for r in p}
    }
    return [rank for rank in sorted(fastest) if is_slow(fastest[rank], [v for r, v in fastest.items() if r != rank])]


def find_slow_links(times: Mapping[Pair, float], slow_ranks: Sequence[int]) -> list[Pair]:
    """Return links that are slow, or do not work, though neither of their ranks is slow."""
    fair = {pair: seconds for pair, seconds in times.items() if not set(pair) & set(slow_ranks)}
    return [
        pair
        for pair, seconds in fair.items()
        # A link that does not work needs no other to compare it with.
        if math.isinf(seconds) or is_slow(seconds, [v for other, v in fair.items() if other != pair])
    ]


def is_slow(value: float, others: Sequence[float]) -> bool:
    """Return True if a time is much longer than the others; False where there is only one other."""
    return len(others) > 1 and value > _SLOW_FACTOR * statistics.median(others)


def _can_connect(store: Store, other: int, timeout_s: float) -> bool:
    if not wait_until(lambda: store.check([f"port/{other}"]), timeout_s):
        return False
    # A connection is enough: what listens there sends nothing.
    address, port = json.loads(store.get(f"port/{other}"))
    with suppress(OSError), socket.create_connection((address, port), timeout=_CONNECT_SECONDS):
        return True
    return False


def _find_own_address() -> str:
    """Return the address by which other machines know this one."""
    for address in _iterate_addresses():
        if not address.startswith("127."):
            return address
    return "127.0.0.1"


def _iterate_addresses() -> Iterator[str]:
    with suppress(OSError):
        yield from (str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET))
