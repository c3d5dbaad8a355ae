"""Counts of work in the text format that Prometheus scrapes.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/ (version 0.0.4).
"""

from __future__ import annotations

from collections.abc import Iterator

from myloware_store.core.results import TenantStats, WorkStats

__all__ = ["exposition"]

_HELP = {
    "myloware_work_items": "Open items by state.",
    "myloware_work_oldest_ready_seconds": "How long the oldest item that can be claimed has waited.",
    "myloware_work_leases_expired": "Items whose lease has expired and that nobody has taken back.",
    "myloware_work_attempts_ended": "Attempts that ended within the window.",
    "myloware_work_attempts_window_seconds": "The length of that window.",
    "myloware_dead_letters": "Dead letters that were not replayed.",
    "myloware_work_unindexed": "Ended items that are not in the full-text index yet, 10000 at most.",
    "myloware_work_oldest_unindexed_seconds": "How long ago the first of them ended.",
}


def exposition(stats: WorkStats) -> str:
    """Return the counts as gauges, with the tenant as a label where they are counted by tenant."""
    whole = {
        "myloware_work_attempts_window_seconds": stats.window_seconds,
        "myloware_work_unindexed": stats.unindexed,
        "myloware_work_oldest_unindexed_seconds": stats.oldest_unindexed_seconds or 0.0,
    }
    lines = []
    for name, text in _HELP.items():
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
        if name in whole:
            lines.append(f"{name} {whole[name]:g}")
        for tenant in stats.tenants:
            label = tenant.tenant_id.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            for labels, value in _samples(name, tenant):
                lines.append(f'{name}{{tenant="{label}"{labels}}} {value}')
    return "\n".join(lines) + "\n"


def _samples(name: str, tenant: TenantStats) -> Iterator[tuple[str, float]]:
    match name:
        case "myloware_work_items":
            for state in ("ready", "scheduled", "processing", "awaiting_approval"):
                yield f',state="{state}"', getattr(tenant, state)
        case "myloware_work_oldest_ready_seconds":
            yield "", tenant.oldest_ready_seconds or 0.0
        case "myloware_work_leases_expired":
            yield "", tenant.expired
        case "myloware_work_attempts_ended":
            for status in ("completed", "failed", "timed_out"):
                yield f',status="{status}"', getattr(tenant, status)
        case "myloware_dead_letters":
            yield "", tenant.dead_letters
