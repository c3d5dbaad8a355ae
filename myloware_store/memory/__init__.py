"""The agents' memory: documents with embeddings, their calls, SQL and table."""
