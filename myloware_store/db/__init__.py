"""PostgreSQL: connections, transactions, tenants, signals; no table."""
