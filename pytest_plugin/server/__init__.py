"""The server that tests run on: finding or starting it, and the work on its databases as wholes."""
