"""Work orders, their items, attempts, approvals and dead letters."""
