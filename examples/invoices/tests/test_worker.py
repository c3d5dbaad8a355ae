"""The worker as it runs in production: another process, which finds its database in DATABASE_URL."""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal


def test_workers_share_what_waits(service, myloware_dsn) -> None:
    """Two workers at once book every invoice, and each once."""
    service.receive([f"Invoice A-{number}: 1.50 EUR" for number in range(40)], mail="m1")

    workers = [
        subprocess.Popen([sys.executable, "-m", "invoices"], env={**os.environ, "DATABASE_URL": myloware_dsn})
        for _ in range(2)
    ]

    assert [worker.wait() for worker in workers] == [0, 0]
    assert service.due() == {"EUR": Decimal("60.00")}
