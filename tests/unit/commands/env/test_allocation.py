"""The report of an allocation: what is wrong is named by rank and machine, with a fix."""

import math
from typing import Any

import pytest

from mlscale.commands.env.allocation import (
    AllocationReport,
    build_allocation_document,
    format_allocation,
    list_allocation_checks,
)
from mlscale.commands.env.allocation_facts import ProcessFacts


def make_report(**values: Any) -> AllocationReport:
    facts = {rank: ProcessFacts(rank, f"n{rank}", 0, {"python": "3.11", "torch": "2.13"}, 0) for rank in range(4)}
    times = {(0, 1): 0.001, (0, 2): 0.001, (0, 3): 0.001, (1, 2): 0.001, (1, 3): 0.001, (2, 3): 0.001}
    cores = {0: 0.2, 1: 0.21, 2: 0.2, 3: 0.25}
    known = {"world_size": 4, "facts": facts, "offsets": {1: 0.002}, "cores": cores, "times": times}
    return AllocationReport(**{**known, **values})


def read_problems(report: AllocationReport) -> dict[str, tuple[str, str]]:
    return {check.option: (check.says, check.fix) for check in list_allocation_checks(report, "runs") if not check.ok}


def test_a_sound_allocation_has_no_problem() -> None:
    report = make_report()
    checks = [*list_allocation_checks(report, "runs")]
    assert [check.option for check in checks] == [
        "processes",
        "versions",
        "clocks",
        "runs_dir",
        "cores",
        "ports",
        "links",
    ]
    assert all(check.ok for check in checks)
    assert "rank 0 on n0  rank 1 on n1        1 ms  1.05 GB/s" in format_allocation(report, checks)
    assert len(build_allocation_document(report, checks)["links"]) == 6


@pytest.mark.parametrize(
    ("values", "option", "says"),
    [
        ({"offsets": {2: -7.5}}, "clocks", "rank 2 on n2 is -7.5 s off"),
        ({"blind": [1, 3]}, "runs_dir", "rank 1 on n1, rank 3 on n3 do not see runs of rank 0"),
        ({"unreachable": {1: [3]}, "times": {}}, "ports", "rank 1 on n1 does not reach rank 3 on n3"),
        ({"world_size": 6}, "processes", "rank 4, rank 5 of 6 did not come"),
        (
            {"world_size": 6, "absent": {"n4": (1, 2), "n5": (1, 1)}},
            "processes",
            "rank 4, rank 5 of 6 did not come (n4, 1 of 2; n5, 1 of 1)",
        ),
        ({"silent": [2]}, "processes", "rank 2 on n2 came and stopped answering"),
        (
            {"cores": {0: 0.2, 1: 0.2, 2: 2.0, 3: 0.3}},
            "cores",
            "rank 2 on n2 is slow: a computation takes 2 s on its core, others 200 ms",
        ),
    ],
)
def test_each_problem_names_its_ranks(values: dict[str, Any], option: str, says: str) -> None:
    problems = read_problems(make_report(**values))
    assert list(problems) == [option]
    assert problems[option][0] == says
    assert problems[option][1]


def test_only_nodes_of_which_no_rank_came_are_to_be_left_out() -> None:
    fix = read_problems(make_report(world_size=6, absent={"n4": (1, 2), "n5": (1, 1)}))["processes"][1]
    assert fix.endswith("""leave out n5: 'launch.directives={exclude: "n5"}'""")


def test_a_link_that_does_not_work_is_a_problem_also_between_the_only_two_machines() -> None:
    says, fix = read_problems(make_report(times={(0, 1): math.inf}))["links"]
    assert says == "the link of rank 0 on n0 and rank 1 on n1 does not work"
    assert "cables" in fix


def test_another_version_is_named() -> None:
    facts = dict(make_report().facts) | {3: ProcessFacts(3, "n3", 0, {"python": "3.11", "torch": "2.12"}, 0)}
    assert read_problems(make_report(facts=facts))["versions"][0] == "rank 3 on n3 has torch 2.12, not 2.13"


def test_a_slow_machine_is_named_with_the_others_time() -> None:
    times = {pair: 0.3 if 2 in pair else seconds for pair, seconds in make_report().times.items()}
    says, fix = read_problems(make_report(times=times))["links"]
    assert says == "rank 2 on n2 is slow: its fastest link takes 300 ms, others 1 ms"
    assert fix == "leave it out: 'launch.directives={exclude: n2}'"


def test_a_slow_link_is_not_reported_as_sound_and_cables_are_only_blamed_where_there_are_some() -> None:
    times = {**make_report().times, (1, 3): 0.5}
    checks = [check for check in list_allocation_checks(make_report(times=times), "runs") if check.option == "links"]
    assert [check.ok for check in checks] == [False]
    assert "cables" in checks[0].fix
    alone = {rank: ProcessFacts(rank, "n0", rank, {}, 0) for rank in range(4)}
    assert "cables" not in read_problems(make_report(times=times, facts=alone))["links"][1]
