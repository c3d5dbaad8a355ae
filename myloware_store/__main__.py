"""Runs the command line as `python -m myloware_store`."""

from myloware_store.cli import main

main()
