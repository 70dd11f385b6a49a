"""Ranks meet by a store: the plan, errors, late ranks, and what an earlier start has left in it."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from mlscale.errors import Exit, MLScaleError
from mlscale.launch.external import first_rank
from mlscale.launch.external.external_launcher import ExternalRank, find_external_rank
from mlscale.launch.external.first_rank import FirstRank
from mlscale.launch.external.other_rank import OtherRank
from mlscale.launch.external.rank_meeting import open_store

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _short_farewells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_rank, "_FAREWELL_SECONDS", 1.0)


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def rank_of(number: int, port: int, **more: str) -> ExternalRank:
    found = find_external_rank(
        {"RANK": str(number), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **more}
    )
    assert found is not None
    return found


def start(function: Callable[[], T]) -> Future[T]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(function)
    pool.shutdown(wait=False)
    return future


def follow(port: int, problem: MLScaleError | None = None, more: Mapping[str, str] | None = None) -> Mapping[str, Any]:
    other = OtherRank(rank_of(1, port, **(more or {})), 20)
    plan = other.wait_for_plan()
    if "result" in plan:
        other.report_end()
        return plan
    other.confirm_plan(problem)
    return {**plan, **other.wait_for_end()}


def test_a_plan_is_checked_by_every_rank_and_the_result_reaches_it(port: int) -> None:
    second = start(lambda: follow(port))
    first = FirstRank(rank_of(0, port), 20)
    first.gather_members()
    assert sorted(first.members) == [0, 1]
    first.publish_plan({"folder": "here"})
    first.publish_end({"result": {"ok": True}})
    reported = second.result(20)
    assert (reported["folder"], reported["result"]) == ("here", {"ok": True})


def test_an_error_of_the_first_rank_ends_the_others_with_its_code_and_is_printed_once(port: int) -> None:
    second = start(lambda: follow(port))
    FirstRank(rank_of(0, port), 20).publish_error(MLScaleError("no data", exit=Exit.ENVIRONMENT))
    with pytest.raises(MLScaleError, match="no data") as reported:
        second.result(20)
    assert (reported.value.exit, reported.value.is_reported) == (Exit.ENVIRONMENT, True)


def test_a_rank_that_does_not_see_the_folder_ends_all(port: int) -> None:
    second = start(lambda: follow(port, MLScaleError("not seen", fix="runs_dir=/shared")))
    first = FirstRank(rank_of(0, port), 20)
    first.gather_members()
    with pytest.raises(MLScaleError, match="not seen") as refused:
        first.publish_plan({"folder": "here"})
    assert (refused.value.exit, refused.value.fix, refused.value.is_reported) == (
        Exit.ENVIRONMENT,
        "runs_dir=/shared",
        False,
    )
    with pytest.raises(MLScaleError, match="not seen") as reported:
        second.result(20)
    assert reported.value.is_reported


def test_an_error_after_the_training_reaches_the_others(port: int) -> None:
    second = start(lambda: follow(port))
    first = FirstRank(rank_of(0, port), 20)
    first.gather_members()
    first.publish_plan({"folder": "here"})
    first.publish_error(MLScaleError("disk full", exit=Exit.ENVIRONMENT))
    with pytest.raises(MLScaleError, match="disk full"):
        second.result(20)


def test_a_run_that_is_done_needs_no_training(port: int) -> None:
    second = start(lambda: follow(port))
    first = FirstRank(rank_of(0, port), 20)
    first.gather_members()
    first.publish_end({"result": {"ok": True}})
    assert second.result(20)["result"] == {"ok": True}


def test_a_rank_that_never_comes_is_named(port: int) -> None:
    first = FirstRank(rank_of(0, port), 0.3)
    with pytest.raises(MLScaleError, match=r"rank 1 of 2 did not join within 0\.3 s") as late:
        first.gather_members()
    assert late.value.exit == Exit.ENVIRONMENT
    assert "unset RANK WORLD_SIZE" in late.value.fix


def test_a_first_rank_that_never_listens_is_named(port: int) -> None:
    with pytest.raises(MLScaleError, match=f"rank 1 did not reach 127.0.0.1:{port}") as late:
        OtherRank(rank_of(1, port), 0.5)
    assert late.value.exit == Exit.ENVIRONMENT


def test_what_an_earlier_start_has_left_is_not_taken(port: int) -> None:
    """torchrun's agent keeps its store: over restarts, and with the same restart count when its size changes."""
    agent = open_store(rank_of(0, port), 20)
    shared = {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    for name in ("leader", "stale/plan"):
        agent.set(
            name, json.dumps({"round": "stale", "timeout_s": 20, "members": {"1": "another"}, "folder": "yesterday"})
        )
    second = start(lambda: follow(port, more=shared))
    first = FirstRank(rank_of(0, port, **shared), 20)
    first.gather_members()
    first.publish_plan({"folder": "today"})
    first.publish_end({"result": {}})
    assert second.result(20)["folder"] == "today"


def test_ranks_that_came_learn_that_another_did_not(port: int) -> None:
    three = {"WORLD_SIZE": "3"}
    second = start(lambda: follow(port, more=three))
    first = FirstRank(rank_of(0, port, **three), 1)
    with pytest.raises(MLScaleError, match="rank 2 of 3 did not join within 1 s") as caught:
        first.gather_members()
    first.publish_error(caught.value)
    with pytest.raises(MLScaleError, match="rank 2 of 3 did not join") as learnt:
        second.result(20)
    assert learnt.value.is_reported
