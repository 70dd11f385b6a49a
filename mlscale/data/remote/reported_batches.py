"""Batches after the last of which is reported what failed on the way from other machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from mlscale.data.order.batch_plan import Batch, BatchPlan
from mlscale.data.order.loader import Batches
from mlscale.data.remote.prefetch import report_transfers
from mlscale.data.remote.remote_shard import RemoteAccess


class ReportedBatches:
    """Makes batches, and reports at the end of an epoch, or a validation, which transfers failed in it.

    Args:
        batches: makes them.
        access: counts the transfers.
    """

    def __init__(self, batches: Batches, access: RemoteAccess) -> None:
        self._batches, self._access = batches, access

    def __call__(
        self, plans: Iterable[BatchPlan], list_global_batch: Callable[[BatchPlan], NDArray[np.int64]]
    ) -> Iterator[Batch]:
        """Yield a batch for each plan."""
        planned = _CountedPlans(plans)
        for number, batch in enumerate(self._batches(planned, list_global_batch), 1):
            # Before the last one is handed out: a loop that knows the length asks for no further one.
            if planned.has_ended and number == planned.count:
                report_transfers(self._access)
            yield batch
        report_transfers(self._access)


class _CountedPlans:
    """Plans, counted as they are taken."""

    def __init__(self, plans: Iterable[BatchPlan]) -> None:
        self._plans = plans
        self.count, self.has_ended = 0, False

    def __iter__(self) -> Iterator[BatchPlan]:
        for plan in self._plans:
            self.count += 1
            yield plan
        self.has_ended = True
