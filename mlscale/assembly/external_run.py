"""A training whose ranks another launcher has started: each is this process, in one process group with the others."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

from mlscale.assembly.worker import end_with, train_run_folder
from mlscale.config.composition.frozen import load_frozen
from mlscale.culprit import wrap_unforeseen_error
from mlscale.errors import Exit, MLScaleError
from mlscale.launch import rank_failures as failures
from mlscale.launch.early_stop import EarlyStop
from mlscale.launch.external.external_launcher import ExternalRank
from mlscale.launch.external.first_rank import FirstRank
from mlscale.launch.external.other_rank import OtherRank
from mlscale.launch.external.rank_meeting import count_local_ranks, find_meeting_address
from mlscale.launch.hung_process import end_if_hung
from mlscale.report import Result
from mlscale.runs.run_reader import RUN

# A file system shared by machines may show a new folder late: NFS caches that it did not exist for up to a minute.
_VISIBLE_SECONDS = 60.0
_GRACE_SECONDS = 2.0  # in which rank 0 prints a failure that all ranks have
_POLL_SECONDS = 0.1
_GROUP_TIMEOUT = 1800.0  # seconds, as of the group `strategy`


@contextlib.contextmanager
def lead_ranks(external: ExternalRank, timeout_s: float) -> Iterator[FirstRank]:
    """Gather the ranks around this one, the first; an error in the block ends all of them."""
    _end_with_agent(external)
    first = FirstRank(external, timeout_s)
    try:
        first.gather_members()
        yield first
    except MLScaleError as error:
        first.publish_error(error)
        raise
    except EarlyStop as stop:
        first.publish_error(stop.build_error())
        raise
    except BaseException as error:
        first.publish_error(wrap_unforeseen_error(error) if isinstance(error, Exception) else _create_stop_error())
        raise


def publish_start_error(external: ExternalRank, timeout_s: float, error: MLScaleError) -> None:
    """Let the other ranks end with an error that this one, the first, had before it could gather them."""
    if external.world_size > 1:
        with contextlib.suppress(MLScaleError):
            FirstRank(external, timeout_s).publish_error(error)


def train_as_first_rank(first: FirstRank, folder: Path, checkpoint: Path | None, secrets: Mapping[str, str]) -> None:
    """Train what `folder` describes, as rank 0.

    Args:
        secrets: variables that the config refers to and only this process has.

    Raises:
        MLScaleError: a rank does not see the folder, or the first failure of a rank.
    """
    failures.clear_rank_failures(folder)
    names = list(dict.fromkeys(member.node for member in first.members.values()))
    nodes = {str(rank): names.index(member.node) for rank, member in first.members.items()}
    plan = {
        "folder": str(folder),
        "nodes": nodes,
        "checkpoint": str(checkpoint or ""),
        "secrets": dict(secrets),
        "token": _compute_token(folder),
    }
    first.publish_plan(plan)
    _train_in_group(first, folder, checkpoint, nodes["0"])


def follow_first_rank(external: ExternalRank, timeout_s: float) -> Result:
    """Train as a rank other than 0, which has prepared the run; return its result.

    Raises:
        MLScaleError: rank 0 had an error; or this rank.
    """
    if not 0 <= external.rank < external.world_size:
        raise MLScaleError(
            f"rank {external.rank} of {external.world_size}",
            where=external.describe_variables(),
            fix=f"export {external.launcher.rank}=0, of the first rank",
        )
    _end_with_agent(external)
    other = OtherRank(external, timeout_s)
    plan = other.wait_for_plan()
    if "result" in plan:  # the run of this job is done
        other.report_end()
        return Result.from_dict(plan["result"])
    folder = Path(plan["folder"])
    other.confirm_plan(_check_visible(folder, plan["token"], external))
    os.environ.update({name: value for name, value in plan["secrets"].items() if name not in os.environ})
    checkpoint = Path(plan["checkpoint"]) if plan["checkpoint"] else None
    _train_in_group(other, folder, checkpoint, plan["nodes"][str(external.rank)])
    return Result.from_dict(other.wait_for_end()["result"])


def _train_in_group(member: FirstRank | OtherRank, folder: Path, checkpoint: Path | None, node: int) -> None:
    """Join the process group, and train in it.

    Raises:
        MLScaleError: the first failure of a rank; one rank prints it.
    """
    import torch.distributed as dist

    external = member.external
    with contextlib.ExitStack() as stack:
        if external.rank:
            # The output of one rank is enough.
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        try:
            _join_process_group(member, folder, node)
            with end_if_hung(folder, external.rank):
                train_run_folder(folder, checkpoint)
            if dist.is_initialized():
                dist.destroy_process_group()
        except MLScaleError as error:
            raise _report_own_failure(folder, external.rank, error) from error
        except Exception as error:
            what = failures.classify_remote_failure(error)
            if not what:
                raise _report_own_failure(
                    folder, external.rank, wrap_unforeseen_error(error, f"rank {external.rank}")
                ) from error
            raise _report_remote_failure(folder, external, what, error) from error


def _join_process_group(member: FirstRank | OtherRank, folder: Path, node: int) -> None:
    """Create the process group, with which Lightning and DDP go on, as if torchrun had started this process."""
    import torch
    import torch.distributed as dist
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # public, but not listed

    external, cfg = member.external, load_frozen(folder)
    host, port = find_meeting_address(external)
    on_cuda = cfg.derived.accelerator == "cuda"
    local = external.local_rank
    if on_cuda and torch.cuda.device_count() == 1:
        local = 0  # the launcher has given each process a device of its own
    os.environ.update(
        RANK=str(external.rank),
        WORLD_SIZE=str(external.world_size),
        LOCAL_RANK=str(local),
        LOCAL_WORLD_SIZE=str(count_local_ranks(external) or external.world_size),
        GROUP_RANK=str(node),
        MASTER_ADDR=host,
        MASTER_PORT=str(port),
        # Lightning would set threads by the ranks of one node, of which a machine may have several.
        OMP_NUM_THREADS=str(cfg.derived.threads),
    )
    # By this variable Lightning takes the ranks from these, and not from SLURM's.
    os.environ.setdefault("TORCHELASTIC_RUN_ID", "mlscale")
    if on_cuda:
        torch.cuda.set_device(local)
    if external.world_size == 1:  # what is left of several: it needs no group
        return
    timeout = timedelta(seconds=float((cfg.get("strategy") or {}).get("timeout") or _GROUP_TIMEOUT))
    # A prefix of its own: gloo's keys would else meet those of the store's other users.
    store = PrefixStore("group", member.store)
    backend = "cpu:gloo,cuda:nccl" if on_cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=external.rank, world_size=external.world_size, timeout=timeout)


def _end_with_agent(external: ExternalRank) -> None:
    """End this rank when torchrun's agent was killed: its ranks are in sessions of their own, and would train on while
    another attempt starts.
    """
    if external.is_elastic:
        end_with(os.getppid())


def _check_visible(folder: Path, token: str, external: ExternalRank) -> MLScaleError | None:
    """Return the problem if this rank does not see the run folder as rank 0 has written it."""
    end = time.monotonic() + _VISIBLE_SECONDS
    seen = _compute_token(folder)
    while seen != token and time.monotonic() < end:
        # Not found and another content are both what a cache may show.
        time.sleep(_POLL_SECONDS)
        seen = _compute_token(folder)
    if seen == token:
        return None
    return MLScaleError(
        f"rank {external.rank} does not see the run folder of rank 0",
        where=str(folder),
        why=f"on {os.uname().nodename} it {'has another run.json' if seen else 'does not exist'}, also after "
        f"{_VISIBLE_SECONDS:g} s: ranks on several machines need a shared file system",
        fix="runs_dir=<a folder that all machines share>",
    )


def _compute_token(folder: Path) -> str:
    """Return a digest of run.json, which has the run's id and the start of this attempt; empty where there is none."""
    try:
        return hashlib.sha256((folder / RUN).read_bytes()).hexdigest()
    except OSError:
        return ""


def _report_own_failure(folder: Path, rank: int, error: MLScaleError) -> MLScaleError:
    """Record a failure of this rank and return it: to be printed, unless another rank has done so."""
    _ignore_termination()
    with contextlib.suppress(OSError):
        failures.write_rank_failure(folder, rank, error)
    end = time.monotonic() + (_GRACE_SECONDS if rank else 0.0)
    while time.monotonic() < end and not failures.is_failure_reported(folder):
        time.sleep(_POLL_SECONDS)
    error.is_reported = not failures.claim_failure_report(folder)
    return error


def _report_remote_failure(folder: Path, external: ExternalRank, what: str, error: Exception) -> MLScaleError:
    """Return the failure of another rank, by which this one has failed: to be printed, unless another rank has."""
    _ignore_termination()
    with contextlib.suppress(OSError):
        failures.write_remote_failure(folder, external.rank, what, error)
    cause = failures.find_own_failure(folder, external.world_size) or failures.explain_lost_ranks(
        folder, external.world_size
    )
    cause.is_reported = not failures.claim_failure_report(folder)
    if (
        cause.is_reported
        and external.rank == 0
        and external.is_elastic
        and count_local_ranks(external) != external.world_size
    ):
        # torchrun prints on each machine what its own ranks print, and people look at the first one.
        print(f"failed    {cause.what}; another rank has printed where and why", file=sys.stderr)
    return cause


def _ignore_termination() -> None:
    """Let torchrun's SIGTERM, which follows the first failure, not end this process before it has reported it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _create_stop_error() -> MLScaleError:
    return MLScaleError("rank 0 was interrupted", fix="start the job again", exit=Exit.INTERRUPTED)
