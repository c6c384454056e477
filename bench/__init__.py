"""How fast it is, beside what it could be and beside what users would take instead: `scripts/bench`."""
