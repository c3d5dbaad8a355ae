"""The sibling's settings."""
