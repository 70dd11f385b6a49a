"""Rank 0 at the meeting of ranks: it gathers them, and publishes the run that it has prepared."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mlscale.errors import Exit, MLScaleError
from mlscale.launch.external.external_launcher import ExternalRank
from mlscale.launch.external.rank_meeting import RankFacts, build_error_record, get_round_store, open_store, wait_until

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]  # public, but not listed

_FAREWELL_SECONDS = 10.0  # the longest time for reading the last message
_ERROR_FAREWELL_SECONDS = 1.0  # the same where others have probably failed as well


class FirstRank:
    """Rank 0 at the meeting: it learns who is there, prepares the run, and publishes it.

    Attributes:
        members: the facts of every rank, by number.
    """

    def __init__(self, external: ExternalRank, timeout_s: float) -> None:
        self.external = external
        self._timeout_s = timeout_s
        self._round = secrets.token_hex(8)
        self._shared = open_store(external, timeout_s)
        self._has_published = self._has_ended = False
        self.members: dict[int, RankFacts] = {}
        self._shared.set("leader", json.dumps({"round": self._round, "timeout_s": timeout_s}))

    @property
    def store(self) -> Store:
        """The store of this round alone."""
        return get_round_store(self._shared, self._round)

    def gather_members(self) -> None:
        """Wait for all ranks.

        Raises:
            MLScaleError: some did not come within the time (exit code 5).
        """
        texts: dict[int, str] = {}
        try:
            self._collect_texts("hello", self._timeout_s, "join", texts)
        finally:  # those that came learn of the error, too
            facts = {rank: json.loads(text) for rank, text in texts.items()}
            self.members = {rank: RankFacts(**{**fact, "cores": tuple(fact["cores"])}) for rank, fact in facts.items()}
            self.members[0] = RankFacts.collect_facts(self.external)

    def publish_plan(self, plan: Mapping[str, Any]) -> None:
        """Give all ranks the plan, and wait until each has checked it.

        Raises:
            MLScaleError: a rank can't take part; the other ranks learn of it, too (exit code 5).
        """
        self._publish(plan)
        problems: dict[int, str] = {}
        self._collect_texts("seen", self._timeout_s, "check the run folder", problems)
        first = next((text for _, text in sorted(problems.items()) if text), "")
        refused = None if not first else MLScaleError(**json.loads(first), exit=Exit.ENVIRONMENT)
        self.store.set("go", json.dumps({"error": build_error_record(refused) if refused else None}))
        if refused:
            refused.unbuilt = True  # nothing has run yet
            self._has_ended = True
            self._collect_farewells()
            raise refused

    def publish_error(self, error: MLScaleError) -> None:
        """Let all ranks end with the error of this one; does nothing where they know the outcome already."""
        is_stop = error.exit == Exit.SAVED
        with suppress(MLScaleError, RuntimeError):
            if not self._has_published:
                # A launcher that stops a job sends its signal to all ranks, and kills those that take long to end.
                if not self.members and not is_stop:
                    self.gather_members()
                self._publish({"error": build_error_record(error)})
                self._has_ended = True
                self._collect_farewells(_ERROR_FAREWELL_SECONDS if is_stop else _FAREWELL_SECONDS)
            elif not self._has_ended:
                self.publish_end({"error": build_error_record(error)})

    def publish_end(self, outcome: Mapping[str, Any]) -> None:
        """Give all ranks the outcome of the run, and wait until they have read it: the store may end with this rank."""
        if not self._has_published:  # the run of this job was done before: they still wait for a plan
            self._publish(outcome)
        self._has_ended = True
        with suppress(RuntimeError):
            self.store.set("end", json.dumps(outcome))
        self._collect_farewells(_ERROR_FAREWELL_SECONDS if "error" in outcome else _FAREWELL_SECONDS)

    def _publish(self, plan: Mapping[str, Any]) -> None:
        self._has_published = True
        nonces = {rank: member.nonce for rank, member in self.members.items()}
        self.store.set("plan", json.dumps({"members": nonces, **plan}))

    def _collect_farewells(self, seconds: float = _FAREWELL_SECONDS) -> None:
        with suppress(MLScaleError, RuntimeError):
            self._collect_texts("bye", seconds, "end", {})

    def _collect_texts(self, name: str, seconds: float, aim: str, texts: dict[int, str]) -> None:
        """Fill `texts` with what each other rank has left under `name`."""
        store, missing = self.store, set(range(1, self.external.world_size))

        def take_arrived() -> bool:
            for rank in sorted(missing):
                if store.check([f"{name}/{rank}"]):
                    texts[rank] = store.get(f"{name}/{rank}").decode()
                    missing.discard(rank)
            return not missing

        def describe_missing() -> str:
            shown = ", ".join(map(str, sorted(missing)[:8])) + (", …" if len(missing) > 8 else "")
            return f"rank{'s' if len(missing) > 1 else ''} {shown} of {self.external.world_size}"

        def create_error() -> MLScaleError:
            launcher = self.external.launcher
            return MLScaleError(
                f"{describe_missing()} did not {aim} within {seconds:g} s",
                where=self.external.describe_variables(),
                why=f"{launcher.name} has started this rank; the others ended, are late or do not reach it",
                fix="launch.timeout_s=3600, which waits longer, if their output shows no error; "
                f"or unset {launcher.rank} {launcher.size}, where they are left over",
                exit=Exit.ENVIRONMENT,
            )

        def describe_wait() -> str:
            return f"for {describe_missing()} to {aim}, started by {self.external.launcher.name}"

        wait_until(take_arrived, lambda: seconds, create_error, None if name == "bye" else describe_wait)
