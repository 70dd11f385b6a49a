"""Train runs as jobs of SLURM, and kill their ranks where they run: the job's own script has them requeued."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mlscale.errors import Exit, MLScaleError
from mlscale.launch.slurm.job_states import JobState, find_slurm_states
from mlscale.launch.slurm.slurm_commands import cancel_job, run_slurm
from mlscale.runs.job_record import JobRecord, read_job_record
from mlscale.verify_resume import stop_request as halts
from mlscale.verify_resume.killed_run import CommandExit, KillPoint
from mlscale.verify_resume.played_node import extract_error_text, read_from

_POLL_SECONDS = 0.2
_STATE_SECONDS = 2.0  # between two questions to the controller of the cluster, which serves all of its users
_CANCEL_SECONDS = 60.0


@dataclass
class SlurmStarter:
    """Submits each run by `mlscale train`, and waits for its job; a killed one continues when SLURM has requeued it.

    Attributes:
        root: the folder of runs, which all nodes see.
        report: prints lines.
        runs: those that were submitted.
    """

    root: Path
    report: Callable[..., None]
    runs: list[Path] = field(default_factory=list)
    _reasons: set[tuple[str, str]] = field(default_factory=set)

    def train(self, run: Path, kill: KillPoint | None = None) -> CommandExit:
        folder = run / "trace"
        halts.write_stop_order(folder, *((kill.phase, kill.step) if kill else ()))
        start = time.monotonic()
        offset = len(self.read_output(run).encode())
        if not self._find_state(run).is_live:
            self._submit(run)
        for state in self._iterate_states(run):
            if halts.get_stopped_path(folder).exists():
                self._kill_ranks(run)
                return CommandExit(None, "", time.monotonic() - start)
            self._report_waiting(run, state)
        text = extract_error_text(read_from(_get_log_path(run), offset))
        return CommandExit(*self._conclude_end(run, text), time.monotonic() - start)

    def read_output(self, run: Path) -> str:
        return read_from(_get_log_path(run), 0)

    def close(self) -> None:
        """Cancel jobs that wait or run, and wait until they have ended: they write into folders that are removed."""
        for run in self.runs:
            with contextlib.suppress(MLScaleError):
                if not self._find_state(run).is_live:
                    continue
                cancel_job(_read_record(run).id)
                deadline = time.monotonic() + _CANCEL_SECONDS
                while self._find_state(run).is_live and time.monotonic() < deadline:
                    time.sleep(_STATE_SECONDS)

    def _submit(self, run: Path) -> None:
        """Submit the run by a command as a user types it.

        Raises:
            MLScaleError: it fails.
        """
        words = [sys.executable, "-m", "mlscale", "train", f"resume={run}", f"runs_dir={self.root}", "trust=true"]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            what, _, rest = extract_error_text(done.stdout + done.stderr).partition("\n")
            raise MLScaleError(
                f"the run could not be submitted: {what}" + (f"\n{rest}" if rest else ""), exit=Exit.ENVIRONMENT
            )
        self.runs.append(run)
        self.report(f"job       {_read_record(run).id}: {run.name}")

    def _iterate_states(self, run: Path) -> Iterator[JobState]:
        """Yield the state of the run's job, several times a second, until it has ended."""
        state, requested = self._find_state(run), time.monotonic()
        while state.is_live:
            yield state
            time.sleep(_POLL_SECONDS)
            if time.monotonic() - requested > _STATE_SECONDS:
                halts.renew_stop_order(run / "trace")
                state, requested = self._find_state(run), time.monotonic()

    def _find_state(self, run: Path) -> JobState:
        """Return the state of a run's job; that of a controller that does not respond is waited for."""
        record = read_job_record(run)
        if record is None:
            return JobState("none")
        state = find_slurm_states([record])[record.id]
        return JobState("running", state.reason) if state.word == "unknown" else state

    def _kill_ranks(self, run: Path) -> None:
        """Kill the ranks of the run's job, on all of its nodes, as a node's out-of-memory killer does: not its script,
        which then has the job requeued."""
        # Before the kill: the next start of the job must not stop there again.
        halts.write_stop_order(run / "trace")
        job = _read_record(run).id
        steps = run_slurm(["squeue", "--steps", "--noheader", f"--jobs={job}", "-o", "%i"]).split()
        for step in steps:
            if step.rpartition(".")[2].isdigit():  # `12.batch` is the script
                run_slurm(["scancel", "--signal=KILL", step])

    def _report_waiting(self, run: Path, state: JobState) -> None:
        """Print once why a job waits."""
        entry = (_read_record(run).id, state.reason)
        if state.word == "queued" and state.reason and entry not in self._reasons:
            self._reasons.add(entry)
            self.report(f"waiting   job {entry[0]} is queued: {state.reason}")

    def _conclude_end(self, run: Path, text: str) -> tuple[int, str]:
        """Return the exit code of a job that has ended, and its error."""
        record = _read_record(run)
        last = record.starts[-1] if record.starts else None
        if last is not None and last.code is not None:
            return last.code, text or record.stopped or last.cause
        state = self._find_state(run)
        return int(Exit.ENVIRONMENT), f"job {record.id} has {state.word} without a report of its end\n{text}".rstrip()


def _read_record(run: Path) -> JobRecord:
    record = read_job_record(run)
    assert record is not None, "a submitted run has a job"
    return record


def _get_log_path(run: Path) -> Path:
    record = read_job_record(run)
    return Path(record.log) if record else run / "logs/job.log"
