"""The layout of ranks that another launcher has started, and whose default OMP_NUM_THREADS is."""

from __future__ import annotations

import os

import pytest

from mlscale.commands.train.ranks import RankLayout, has_default_thread_count
from mlscale.launch.external.rank_meeting import RankFacts


def member(node: str, host: str = "h", cores: tuple[int, ...] = (0, 1)) -> RankFacts:
    return RankFacts("nonce", host, node, cores, "agent")


@pytest.mark.parametrize(
    ("members", "layout"),
    [
        ([member("0"), member("0")], (2, 1, 2)),
        ([member("0"), member("1")], (1, 2, 2)),  # two launchers on one machine share its cores
        ([member("0", "a"), member("0", "a"), member("1", "b"), member("1", "b")], (2, 2, 2)),
        ([member("0", "a"), member("0", "a"), member("1", "b")], (3, 1, 2)),  # uneven
        ([member("0", cores=(0,)), member("0", cores=(1,))], (2, 1, 1)),  # bound to cores of their own
        ([member("0", cores=()), member("0", cores=())], (2, 1, 2)),  # unknown
    ],
)
def test_machines_devices_and_who_shares_cores(members: list[RankFacts], layout: tuple[int, int, int]) -> None:
    derived = RankLayout.derive_layout(dict(enumerate(members)))
    assert (derived.devices, derived.nodes, derived.sharing) == layout
    assert derived.world_size == len(members)


def test_a_thread_count_is_the_users_unless_torchrun_has_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert not has_default_thread_count()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with open(f"/proc/{os.getppid()}/environ", "rb") as file:
        typed = b"OMP_NUM_THREADS=" in file.read()
    assert has_default_thread_count() is not typed
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert not has_default_thread_count()
