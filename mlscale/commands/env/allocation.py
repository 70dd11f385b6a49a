"""`mlscale env` started by torchrun, srun or mpirun: compare the processes, and measure the links between them."""

from __future__ import annotations

import json
import math
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.commands.env import allocation_facts as facts_of
from mlscale.commands.env import link_times as links
from mlscale.commands.env.allocation_facts import ProcessFacts
from mlscale.commands.env.core_times import find_slow_cores, measure_core
from mlscale.commands.env.environment_checks import EnvironmentCheck
from mlscale.commands.env.link_times import Pair
from mlscale.contracts.output_document import print_document
from mlscale.errors import Exit, MLScaleError
from mlscale.launch.external.external_launcher import ExternalRank
from mlscale.launch.external.rank_address import count_node_ranks
from mlscale.launch.external.rank_meeting import open_store
from mlscale.report import format_table

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]  # public, but not listed

_MAX_CLOCK_SECONDS = 1.0  # files of one run are ordered by the clocks of its machines


@dataclass(frozen=True)
class AllocationReport:
    """What rank 0 has seen of an allocation.

    Attributes:
        world_size: processes that were started.
        facts: of those that came, by rank.
        silent: ranks that came, and then did not answer.
        absent: node to its ranks that did not come, and to all of its ranks, where the launcher names the nodes.
        offsets: seconds by which the clock of a rank is ahead of rank 0's.
        blind: ranks that do not see the folder of the runs as rank 0 does.
        unreachable: rank to the ranks that it can't connect to.
        cores: seconds of a computation on a core of each rank.
        times: seconds of an all-reduce of 1 MiB over each link.
    """

    world_size: int
    facts: Mapping[int, ProcessFacts]
    silent: Sequence[int] = ()
    absent: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    offsets: Mapping[int, float] = field(default_factory=dict)
    blind: Sequence[int] = ()
    unreachable: Mapping[int, Sequence[int]] = field(default_factory=dict)
    cores: Mapping[int, float] = field(default_factory=dict)
    times: Mapping[Pair, float] = field(default_factory=dict)

    def name_rank(self, rank: int) -> str:
        """Return the name of a rank in messages: with its machine, where that is known."""
        return f"rank {rank} on {self.facts[rank].host}" if rank in self.facts else f"rank {rank}"

    def name_ranks(self, ranks: Sequence[int]) -> str:
        """Return the names of ranks, at most eight of them."""
        return ", ".join(map(self.name_rank, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")


def check_allocation(external: ExternalRank, runs_dir: str, timeout_s: float, output: str) -> int:
    """Run the checks of one process; rank 0 prints the report. Return the exit code: 5 where a check fails.

    Raises:
        MLScaleError: rank 0 can't be reached (exit code 5).
    """
    # What torch would print, with its C++ frames, where rank 0 is not reached: the error names it.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    store = open_store(external, timeout_s)
    facts_of.publish_facts(store, facts_of.collect_process_facts(external))
    with closing(links.open_link_port(store, external.rank)):
        if external.rank:
            return _take_part(store, external, timeout_s)
        report = _lead_checks(store, external, Path(runs_dir), timeout_s)
    checks = [*list_allocation_checks(report, runs_dir)]
    if output == "json":
        print_document("env-allocation", build_allocation_document(report, checks))
    else:
        print(format_allocation(report, checks))
    return int(Exit.DONE if all(check.ok for check in checks) else Exit.ENVIRONMENT)


def _lead_checks(store: Store, external: ExternalRank, runs: Path, timeout_s: float) -> AllocationReport:
    print(f"waiting   for {external.world_size} processes, up to {timeout_s:g} s", file=sys.stderr, flush=True)
    facts = facts_of.gather_facts(store, external.world_size, timeout_s)
    # Each step asks those that have answered so far: a wait for the others would only repeat an earlier one.
    offsets = facts_of.measure_clock_offsets(store, [rank for rank in facts if rank], timeout_s)
    path = facts_of.write_folder_token(store, runs)
    sees = facts_of.gather_answers(store, "sees", offsets, timeout_s)
    if path is not None:
        path.unlink(missing_ok=True)
    # All at once, as they compute in a training; none is still importing by now.
    own_core = measure_core()
    answers: Mapping[int, str] = {0: repr(own_core), **facts_of.gather_answers(store, "core", sees, timeout_s)}
    cores = {rank: float(text) for rank, text in answers.items()}
    ranks = links.choose_link_ranks(facts)
    # Links are measured only where all are there and reach each other: a collective would wait for the others.
    is_complete = len(answers) == external.world_size
    store.set("ranks", json.dumps(ranks if is_complete else []))
    unreachable: Mapping[int, Sequence[int]] = {}
    times: Mapping[Pair, float] = {}
    if is_complete:
        _publish_unreachable(store, external, ranks, timeout_s)
        answers = facts_of.gather_answers(store, "unreachable", facts, timeout_s)
        unreachable = {rank: missing for rank, text in answers.items() if (missing := json.loads(text))}
        can_measure = not unreachable and len(answers) == external.world_size
        store.set("go", "1" if can_measure else "")
        if can_measure:
            links.publish_times(store, 0, links.measure_links(store, 0, ranks, timeout_s))
            answers = facts_of.gather_answers(store, "links", facts, timeout_s)
            times = links.parse_times(answers.values())
    # The store ends with this process, so it waits for the others.
    facts_of.gather_answers(store, "bye", [rank for rank in answers if rank], min(timeout_s, 10.0))
    return AllocationReport(
        external.world_size,
        facts,
        silent=[rank for rank in facts if rank not in answers],
        absent=_count_absent(external, facts),
        offsets=offsets,
        blind=[rank for rank, answer in sees.items() if not answer],
        unreachable=unreachable,
        cores=cores,
        times=times,
    )


def _count_absent(external: ExternalRank, facts: Mapping[int, ProcessFacts]) -> dict[str, tuple[int, int]]:
    """Return the nodes of which ranks did not come; which ranks they have depends on the launcher's distribution."""
    arrived = Counter(process.host for process in facts.values())
    return {
        node: (count - arrived[node], count)
        for node, count in count_node_ranks(external).items()
        if arrived[node] < count
    }


def _publish_unreachable(store: Store, external: ExternalRank, ranks: Sequence[int], timeout_s: float) -> None:
    missing = links.find_unreachable(store, external.rank, ranks, timeout_s) if external.rank in ranks else []
    store.set(f"unreachable/{external.rank}", json.dumps(missing))


def _take_part(store: Store, external: ExternalRank, timeout_s: float) -> int:
    """Do the part of every rank but the first.

    Raises:
        MLScaleError: rank 0 is silent, or has ended (exit code 5).
    """
    try:
        facts_of.answer_clock_requests(store, external.rank, timeout_s)
        facts_of.check_folder_token(store, external.rank, timeout_s)
        store.set(f"core/{external.rank}", repr(measure_core()))
        ranks = json.loads(facts_of.wait_for_word(store, "ranks", timeout_s))
        if ranks:
            _publish_unreachable(store, external, ranks, timeout_s)
            if facts_of.wait_for_word(store, "go", timeout_s):
                own = links.measure_links(store, external.rank, ranks, timeout_s)
                links.publish_times(store, external.rank, own)
        store.set(f"bye/{external.rank}", "")
    except RuntimeError as error:  # torch's own, for a store that is gone
        raise MLScaleError(
            "rank 0 has ended before the checks were over",
            where=external.describe_variables(),
            why="it continues without a rank that does not answer in time",
            fix="timeout_s=300, which waits longer; the output of rank 0 shows what was found",
            exit=Exit.ENVIRONMENT,
        ) from error
    return int(Exit.DONE)


def list_allocation_checks(report: AllocationReport, runs_dir: str) -> Iterator[EnvironmentCheck]:
    """Yield the checks of an allocation, in the order in which a start meets them."""
    yield _check_presence(report)
    yield _check_versions(report)
    yield _check_clocks(report)
    yield EnvironmentCheck(
        "runs_dir",
        not report.blind,
        f"{report.name_ranks(report.blind)} do not see {runs_dir} of rank 0" if report.blind else "seen by all",
        "runs_dir=<a folder on a shared file system>" if report.blind else "",
    )
    yield from _check_cores(report)
    if len(report.facts) == report.world_size and not report.silent:
        yield _check_ports(report)
        yield from _check_links(report)


def _check_presence(report: AllocationReport) -> EnvironmentCheck:
    missing = [rank for rank in range(report.world_size) if rank not in report.facts]
    hosts = len({process.host for process in report.facts.values()})
    texts, fix = [], "look at their output; timeout_s=300 waits longer"
    if missing:
        # By number alone: the machine of a rank that did not come is unknown, but for launchers that list the nodes.
        nodes = [f"{node}, {count} of {all_ranks}" for node, (count, all_ranks) in report.absent.items()]
        more = f" ({'; '.join(nodes)})" if nodes else ""
        texts.append(f"{report.name_ranks(missing)} of {report.world_size} did not come{more}")
    if report.silent:
        texts.append(f"{report.name_ranks(report.silent)} came and stopped answering")
    empty = [node for node, (count, all_ranks) in report.absent.items() if count == all_ranks]
    if empty:
        fix += f"; or leave out {', '.join(empty)}: 'launch.directives={{exclude: \"{','.join(empty)}\"}}'"
    if texts:
        return EnvironmentCheck("processes", False, "; ".join(texts), fix)
    return EnvironmentCheck("processes", True, f"{report.world_size} on {hosts} machine{'s' * (hosts != 1)}")


def _check_versions(report: AllocationReport) -> EnvironmentCheck:
    first = report.facts[min(report.facts)].versions
    differing = [
        f"{report.name_rank(rank)} has {name} {process.versions.get(name, 'not installed')}, not {version}"
        for rank, process in sorted(report.facts.items())
        for name, version in first.items()
        if process.versions.get(name) != version
    ]
    if differing:
        more = f", and {len(differing) - 3} more" if len(differing) > 3 else ""
        return EnvironmentCheck(
            "versions", False, "; ".join(differing[:3]) + more, "the same environment on all machines"
        )
    return EnvironmentCheck("versions", True, ", ".join(f"{name} {version}" for name, version in first.items()))


def _check_clocks(report: AllocationReport) -> EnvironmentCheck:
    late = {rank: offset for rank, offset in report.offsets.items() if abs(offset) > _MAX_CLOCK_SECONDS}
    if late:
        text = ", ".join(f"{report.name_rank(rank)} is {offset:+.1f} s off" for rank, offset in late.items())
        return EnvironmentCheck("clocks", False, text, "synchronise them: chronyc makestep")
    largest = max((abs(offset) for offset in report.offsets.values()), default=0.0)
    return EnvironmentCheck("clocks", True, f"at most {1000 * largest:.0f} ms apart")


def _check_ports(report: AllocationReport) -> EnvironmentCheck:
    if report.unreachable:
        text = "; ".join(
            f"{report.name_rank(rank)} does not reach {report.name_ranks(list(others))}"
            for rank, others in list(report.unreachable.items())[:3]
        )
        return EnvironmentCheck("ports", False, text, "open the ports between the machines of a job, 1024 and up")
    return EnvironmentCheck("ports", True, "every machine reaches every other one")


def _check_cores(report: AllocationReport) -> Iterator[EnvironmentCheck]:
    if not report.cores:
        return
    low, high = _format_time(min(report.cores.values())), _format_time(max(report.cores.values()))
    slow = find_slow_cores(report.cores)
    for rank in slow:
        own, host = _format_time(report.cores[rank]), report.facts[rank].host
        text = f"{report.name_rank(rank)} is slow: a computation takes {own} on its core, others {low}"
        fix = f"look at what else runs on {host}, and at the CPU time that it has; or leave it out: "
        yield EnvironmentCheck("cores", False, text, fix + f"'launch.directives={{exclude: {host}}}'")
    if not slow:
        yield EnvironmentCheck("cores", True, f"a computation takes {low} to {high} on a core of each process")


def _check_links(report: AllocationReport) -> Iterator[EnvironmentCheck]:
    if not report.times:
        return
    slow = links.find_slow_ranks(report.times)
    for rank in slow:
        own = _format_time(min(seconds for pair, seconds in report.times.items() if rank in pair))
        usual = _format_time(min(report.times.values()))
        text = f"{report.name_rank(rank)} is slow: its fastest link takes {own}, others {usual}"
        fix = f"leave it out: 'launch.directives={{exclude: {report.facts[rank].host}}}'"
        yield EnvironmentCheck("links", False, text, fix)
    slow_links = links.find_slow_links(report.times, slow)
    for first, last in slow_links:
        seconds = report.times[first, last]
        what = "does not work" if math.isinf(seconds) else f"is slow: {_format_time(seconds)}"
        text = f"the link of {report.name_rank(first)} and {report.name_rank(last)} {what}"
        yield EnvironmentCheck("links", False, text, _suggest_link_fix(report.facts[first], report.facts[last]))
    if not slow and not slow_links:
        low, high = min(report.times.values()), max(report.times.values())
        text = f"{len(report.times)}, an all-reduce of 1 MiB takes {_format_time(low)} to {_format_time(high)}"
        yield EnvironmentCheck("links", True, text)


def _suggest_link_fix(first: ProcessFacts, last: ProcessFacts) -> str:
    if first.host == last.host:
        return "measure again when the machine is idle: without a network, a process that waits for a core is slow"
    return "look at the cables and switches between them"


def _format_time(seconds: float) -> str:
    if math.isinf(seconds):
        return "no end"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def format_allocation(report: AllocationReport, checks: Sequence[EnvironmentCheck]) -> str:
    """Return the report as text: the links as a table, and the checks."""
    width = max(len(check.option) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{'[ok]' if check.ok else '[no]'} {check.option:<{width}}  {check.says}")
        if check.fix:
            lines.append(f"     {'':<{width}}  fix: {check.fix}")
    rows = [
        [report.name_rank(first), report.name_rank(last), _format_time(seconds), _format_rate(seconds)]
        for (first, last), seconds in sorted(report.times.items(), key=lambda item: -item[1])[:20]
    ]
    table = [format_table(rows, ["from", "to", "all-reduce", "rate"]), ""] if rows else []
    return "\n".join([*table, *lines])


def _format_rate(seconds: float) -> str:
    return f"{links.PAYLOAD_BYTES / seconds / 1e9:.2f} GB/s"


def build_allocation_document(report: AllocationReport, checks: Sequence[EnvironmentCheck]) -> dict[str, Any]:
    """Return the report for programs: processes, links and checks."""
    return {
        "processes": [vars(process) for _, process in sorted(report.facts.items())],
        "clock_offsets_s": {str(rank): offset for rank, offset in report.offsets.items()},
        "cores_s": {str(rank): seconds for rank, seconds in report.cores.items()},
        "links": [
            # Infinity, for a link that does not work, becomes null.
            {"ranks": list(pair), "all_reduce_s": seconds, "bytes": links.PAYLOAD_BYTES}
            for pair, seconds in sorted(report.times.items())
        ],
        "checks": [vars(check) for check in checks],
    }
