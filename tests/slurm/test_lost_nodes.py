"""Runs on real SLURM daemons whose node fails, or is lost, and runs on two nodes; after each it is as undisturbed."""

from pathlib import Path

import pytest

from tests.slurm.conftest import Site, read_record, wait_until
from tests.slurm.test_requeues import expect_identical

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_node_fails(site: Site, undisturbed: Path) -> None:
    site.be_slow()
    run = site.submit()
    site.wait_for_steps()
    wait_until(lambda: (run / "checkpoints/last.ckpt").exists() or any((run / "checkpoints").iterdir()), "a checkpoint")
    node = read_record(run).starts[0].nodes
    site.cluster.control("kill", node)
    try:
        site.be_quick()
        wait_until(lambda: len(read_record(run).starts) > 1, "another start")
        record = site.wait_for_end(run)
    finally:
        site.cluster.control("start", node)
    assert record.starts[0].code is None
    assert "its node failed" in record.starts[0].cause
    assert record.starts[1].nodes != node
    expect_identical(undisturbed, run, starts=2)


def test_a_node_is_lost_while_its_processes_continue(site: Site, undisturbed: Path) -> None:
    site.be_slow()
    run = site.submit()
    site.wait_for_steps()
    wait_until(lambda: any((run / "checkpoints").iterdir()), "a checkpoint")
    node = read_record(run).starts[0].nodes
    site.cluster.control("lose", node)
    try:
        wait_until(lambda: "waiting   an earlier start" in (run / "logs/job.log").read_text(), "a start that waits")
    finally:
        site.cluster.control("start", node)  # which ends what still runs there
    site.be_quick()
    record = site.wait_for_end(run)
    assert record.starts[1].nodes != node
    expect_identical(undisturbed, run, starts=2)


def test_ranks_on_two_nodes(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    alone = Site(site.cluster, tmp_path_factory.mktemp("two"))
    alone.call(*alone.recipe, "trainer.devices=2")
    site.be_slow()
    run = site.submit("launch.nodes=2")
    site.wait_for_steps()
    site.cluster.call("scancel", "--batch", "--signal=USR1", read_record(run).id)
    wait_until(lambda: read_record(run).starts[0].code is not None, "the stop")
    site.be_quick()
    record = site.wait_for_end(run)
    assert (record.starts[0].nodes, record.starts[0].code) == ("n[1-2]", 75), (run / "logs/job.log").read_text()
    assert "started by srun" in (run / "logs/job.log").read_text()
    expect_identical(alone.find_run(), run, starts=2)
