"""Workers: threads of a service that claim items, run a handler on each, and hand in what it gave."""

from __future__ import annotations

from myloware_store.worker.handling import NeedsApproval, PermanentFailure, RetryLater
from myloware_store.worker.loop import Worker
from myloware_store.worker.settling import WorkerReport

__all__ = ["NeedsApproval", "PermanentFailure", "RetryLater", "Worker", "WorkerReport"]
