"""A rank other than 0 at the meeting of ranks: it waits for the plan, and at the end for the outcome."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mlscale.errors import Exit, MLScaleError
from mlscale.launch.external.external_launcher import ExternalRank
from mlscale.launch.external.rank_meeting import RankFacts, get_round_store, open_store, wait_until

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]  # public, but not listed

# Rank 0 may wait as long for another rank, and is to report that first.
_LATER_SECONDS = 5.0


class OtherRank:
    """Any rank but the first at the meeting: it waits for the plan, and at the end for the outcome.

    Attributes:
        external: the place of this process.
    """

    def __init__(self, external: ExternalRank, timeout_s: float) -> None:
        self.external = external
        self._timeout_s = timeout_s
        self._facts = RankFacts.collect_facts(external)
        self._shared = open_store(external, timeout_s)
        self._round = ""

    @property
    def store(self) -> Store:
        """The store of this round alone."""
        return get_round_store(self._shared, self._round)

    def wait_for_plan(self) -> dict[str, Any]:
        """Return the plan of rank 0.

        Raises:
            MLScaleError: rank 0 had an error, which it prints itself; or it is late (exit code 5).
        """
        plan: dict[str, Any] = {}

        def find_plan() -> bool:
            self._join_round()
            if self._round and self.store.check(["plan"]):
                read = json.loads(self.store.get("plan"))
                if read["members"].get(str(self.external.rank)) == self._facts.nonce:
                    plan.update(read)
            return bool(plan)

        wait_until(find_plan, lambda: self._timeout_s + _LATER_SECONDS, self._create_late_error)
        self._raise_if_failed(plan)
        return plan

    def confirm_plan(self, problem: MLScaleError | None) -> None:
        """Report to rank 0 that this rank can take part, or its problem, and wait until all ranks have.

        Raises:
            MLScaleError: a rank can't take part; rank 0 prints it.
        """
        texts = {name: getattr(problem, name) for name in ("what", "where", "why", "fix")} if problem else None
        self.store.set(f"seen/{self.external.rank}", json.dumps(texts) if texts else "")
        self._raise_if_failed(self._wait_for("go"))

    def wait_for_end(self) -> dict[str, Any]:
        """Return the outcome of the run, as rank 0 has published it.

        Raises:
            MLScaleError: rank 0 had an error after the training.
        """
        outcome = self._wait_for("end")
        self._raise_if_failed(outcome)
        self.report_end()
        return outcome

    def report_end(self) -> None:
        """Let rank 0 end."""
        with suppress(RuntimeError):
            self.store.set(f"bye/{self.external.rank}", "")

    def _join_round(self) -> None:
        """Take part in the newest round of the store."""
        if not self._shared.check(["leader"]):
            return
        leader = json.loads(self._shared.get("leader"))
        if leader["round"] != self._round:
            self._round, self._timeout_s = leader["round"], float(leader["timeout_s"])
            self.store.set(f"hello/{self.external.rank}", json.dumps(vars(self._facts)))

    def _wait_for(self, name: str) -> dict[str, Any]:
        wait_until(lambda: self.store.check([name]), lambda: self._timeout_s, self._create_late_error)
        message: dict[str, Any] = json.loads(self.store.get(name))
        return message

    def _raise_if_failed(self, message: Mapping[str, Any]) -> None:
        if record := message.get("error"):
            self.report_end()
            error = MLScaleError(record["text"], exit=Exit(record["exit"]))
            error.is_reported = True  # by rank 0
            raise error

    def _create_late_error(self) -> MLScaleError:
        return MLScaleError(
            f"rank {self.external.rank} waited {self._timeout_s:g} s for rank 0",
            where=self.external.describe_variables(),
            why="rank 0 prepares the data and the run folder before the others start, and did not come that far",
            fix="launch.timeout_s=3600, which waits longer, if the output of rank 0 shows no error: mlscale prepare "
            "indexes the data before",
            exit=Exit.ENVIRONMENT,
        )
