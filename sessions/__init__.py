"""Lucid Sessions: recordings of remote-desktop sessions, encrypted, tamper-evident and provable."""

__version__ = "0.1.0"
