"""The sibling's migrations."""
