"""Plain values, errors and results: nothing here knows a database."""
