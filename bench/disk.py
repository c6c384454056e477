"""What is kept of a recording on MongoDB's disk: files and indexes, after a checkpoint."""

from typing import Any

from pymongo import MongoClient

from bench.results import Results
from scripts.devstack.stack import Stack


def measure(stack: Stack, results: Results) -> None:
    """Measure what the stack's database has come to; to be called when it holds recordings."""
    with MongoClient[dict[str, Any]](stack.mongodb_url) as client:
        client.admin.command("fsync")
        database = client[stack.env["storage"]["MONGODB_DATABASE"]]
        # Of recordings alone: what `filling.py` puts there has no bodies.
        sums = {"_id": None, "plaintext": {"$sum": "$plaintext_bytes"}, "envelopes": {"$sum": "$envelope_bytes"}}
        recorded = next(database["chunks"].aggregate([{"$group": sums}]))
        sizes = {name: database.command("collStats", name) for name in ("chunks", "bodies")}
    kept = {name: size["storageSize"] + size["totalIndexSize"] for name, size in sizes.items()}
    results.add("disk | a chunk's record", kept["chunks"] / sizes["chunks"]["count"], "B")
    results.add("disk | bodies, of each envelope byte", kept["bodies"] / recorded["envelopes"], "B")
    results.add("disk | envelope bytes, of each byte recorded", recorded["envelopes"] / recorded["plaintext"], "B")


def measure_sessions(stack: Stack, results: Results) -> None:
    """Measure what a session costs beside its chunks, when the database holds very many."""
    with MongoClient[dict[str, Any]](stack.mongodb_url) as client:
        client.admin.command("fsync")
        database = client[stack.env["storage"]["MONGODB_DATABASE"]]
        sessions = database.command("collStats", "sessions")
        batches = database.command("collStats", "batches")
    whole = sum(one["storageSize"] + one["totalIndexSize"] for one in (sessions, batches))
    results.add("disk | a session and its place in a batch", whole / sessions["count"], "B")
    results.add("disk | of these, indexes", sessions["totalIndexSize"] / sessions["count"], "B")
