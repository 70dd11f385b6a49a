"""The memory of a process at the peak of its training step, in parts, and what it needs at other moments."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mlscale.estimate.live_tensors import LiveTensorMode

_PARTS = (
    "parameters", "gradients", "optimizer_state", "scratch", "gathered_weights", "whole_gradients", "exchange_buffers",
)  # fmt: skip


@dataclass(frozen=True)
class StepMemory:
    """The peak of one process, bytes of tensors, by purpose at that moment.

    Attributes:
        peak: the sum of those below, up to `exchange_buffers`.
        parameters: with buffers; where processes share them, those of one process.
        activations: with the batch, and all else that is alive then, what a trace does not see included.
        scratch: of the kernel that runs then; on a CPU.
        error: the error of the peak, as a share of it.
        how: the method, in words.
        gathered_weights: whole weights of the parts of a model that are gathered at that moment.
        whole_gradients: those that processes have not yet divided among them.
        exchange_buffers: copies of weights and gradients that are sent and received.
        start: the peak while a process shards its model, which is whole until then; 0 where it stays whole.
        hosted: what is in the host's memory, with CPU offload.
        own_state, whole_state: what a checkpoint has of this process, and of all that share the model.
    """

    peak: int
    parameters: int
    gradients: int
    optimizer_state: int
    activations: int
    scratch: int
    error: float
    how: str
    gathered_weights: int = 0
    whole_gradients: int = 0
    exchange_buffers: int = 0
    start: int = 0
    hosted: int = 0
    own_state: int = 0
    whole_state: int = 0

    @classmethod
    def read_live_tensors(cls, live: LiveTensorMode, split: dict[str, int], error: float, how: str) -> StepMemory:
        """Return the memory of steps that were counted.

        Args:
            live: has counted them.
            split: the bytes at the peak by purpose.
            error, how: as in the result.
        """
        parts = {kind: split.get(kind, 0) for kind in _PARTS}
        parts["parameters"] += split.get("buffers", 0)
        peak = sum(split.values())
        return cls(
            peak=peak,
            activations=peak - sum(parts.values()),
            error=error,
            how=how,
            start=live.start,
            hosted=live.hosted_peak,
            own_state=live.own_state_bytes,
            whole_state=live.whole_state_bytes,
            **parts,
        )

    def add_unseen_bytes(self, count: int, error: float, how: str) -> StepMemory:
        """Return the memory with bytes that a trace has not seen, negative where it has seen too many.

        Args:
            error, how: as in the result.
        """
        peak = max(self.peak + count, self.parameters)
        rest = peak - self.peak + self.activations
        # What is less than nothing of activations is less of the kernels' scratch memory.
        return replace(
            self, peak=peak, activations=max(0, rest), scratch=self.scratch + min(0, rest), error=error, how=how
        )

    def compute_save_bytes(self, *, is_sharded: bool) -> int:
        """Return the most that a checkpoint takes of the host's memory on the process that needs the most for it.

        Args:
            is_sharded: each process writes its part, of which it makes a copy. Otherwise the first one gathers the
                whole state, and copies that, so that it can be written while steps go on.
        """
        return self.own_state if is_sharded else 2 * self.whole_state

    def collect_processes_metrics(self, save_bytes: int) -> dict[str, float]:
        """Return the metrics of a model on several processes; none for one that needs nothing for the others."""
        metrics: dict[str, float] = {}
        metrics |= {"exchange_buffers_bytes": self.exchange_buffers} if self.exchange_buffers or self.start else {}
        if self.start:
            metrics |= {
                "gathered_weights_bytes": self.gathered_weights,
                "whole_gradients_bytes": self.whole_gradients,
                "start_memory_bytes": self.start,
                "save_memory_bytes": save_bytes,
            }
        return metrics | ({"host_memory_bytes": self.hosted} if self.hosted else {})
