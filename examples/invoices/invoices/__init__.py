"""A service that keeps what customers owe."""

from invoices.service import InvoiceService

__all__ = ["InvoiceService"]
