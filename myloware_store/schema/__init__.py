"""The functions and triggers of the database."""
