"""What `/health` says of session-storage and of the spool in front of it."""

from collections.abc import Mapping

from sessions.processor.spool_room import Room
from sessions.processor.spooling import Spooling
from sessions.processor.storage_client import StorageClient
from sessions.runtime.health import Check


async def spool_checks(spooling: Spooling, storage: StorageClient) -> Mapping[str, Check]:
    """Return the checks of session-storage and the spool.

    Storage that is away is `degraded` while the spool takes its place, and `failed` while the spool takes nothing: its
    disk cannot be written, it is full, or storage does not know it yet.
    """
    spool, watch = spooling.spool, spooling.watch
    full, unwritable = spool.room.state is Room.FULL, spool.disk.problem
    problem = watch.reason if watch.away else await storage.reachable()
    found = {"storage": Check("ok")}
    if problem is None and not spooling.introduced:
        found["storage"] = Check("failed", "it has not taken a report of this new spool yet")
    if problem is not None:
        what = "chunks go to the spool"
        if unwritable:
            what = f"and the spool cannot be written ({unwritable}): nothing is recorded"
        elif full:
            what = "and the spool is full: chunks are refused"
        elif not spooling.introduced:
            what = "and it does not know this new spool yet: nothing is recorded"
        takes = spooling.introduced and not full and not unwritable
        found["storage"] = Check("degraded" if takes else "failed", f"{problem}; {what}")
    notes = []
    if unwritable:
        notes.append(f"SPOOL_DIR cannot be written ({unwritable}): nothing is recorded while session-storage is away")
    if spool.room.state is not Room.OK:
        notes.append(f"it is {spool.room.state}: {spool.entries} entries, {round(100 * spool.room.fill())} % full")
    if spool.quarantined:
        notes.append(f"{spool.quarantined} entries are in quarantine; `lucid-sessions spool list` shows them")
    if spool.unkept:
        notes.append("the quarantine could not take damaged entries; make room on its disk, then restart the processor")
    if spool.leftovers.problem:
        notes.append(f"delivered entries could not be overwritten: {spool.leftovers.problem}")
    found["spool"] = Check("degraded", "; ".join(notes)) if notes else Check("ok")
    return found
