"""The formats and the proofs, and nothing else: no I/O, no clock, no key, no framework. See FORMAT.md."""
