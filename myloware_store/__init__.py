"""The data layer of MyloWare: work orders, agent memory, approvals and audit in PostgreSQL with pgvector."""
