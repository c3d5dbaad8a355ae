"""A database for each test, class or module, and the way back to how it was."""
