"""Workers: threads of a service that claim items, run a handler on each, and store its results."""

from __future__ import annotations

from myloware_store.worker.loop import Worker
from myloware_store.worker.results import WorkerReport
from myloware_store.worker.threads import NeedsApproval, PermanentFailure, RetryLater

__all__ = ["NeedsApproval", "PermanentFailure", "RetryLater", "Worker", "WorkerReport"]
