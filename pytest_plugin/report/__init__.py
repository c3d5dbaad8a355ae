"""What a run reports: the changes and statements of a test, lock waits, timings, and the last lines."""
