"""What an operator runs: secrets, and a check after `up`. Needs Python's standard library and Docker, nothing else."""
