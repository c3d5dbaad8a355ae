"""The service's own table: payments that are due."""

from __future__ import annotations

import peewee

from myloware_store.db.proxy import proxy


class Payment(peewee.Model):
    """What one invoice asks for."""

    number = peewee.TextField(primary_key=True)
    work_item_id = peewee.UUIDField()
    currency = peewee.TextField()
    amount = peewee.DecimalField(max_digits=12, decimal_places=2)

    class Meta:
        """It lies in the database that the store is open on."""

        database = proxy
        table_name = "payments"
