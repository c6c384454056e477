"""The processors that session-storage knows, and that seals wait for."""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast
from urllib.parse import quote

from sessions.client.answers import known_members
from sessions.client.transport import MAX_JSON_BYTES, OneStorage

State: TypeAlias = Literal["present", "missing", "lost"]
_STATES: Final = ("present", "missing", "lost")
_MAX_ITEMS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorStatus:
    """A processor with a spool, as it last reported; sizes in bytes.

    A seal waits for one that is `missing`, and not for one that is `lost`. `missing_seconds` is the time since its last
    report while session-storage was up.
    """

    name: str
    state: State
    last_report_at: str
    missing_seconds: float
    spooled_entries: int
    spooled_bytes: int
    spooled_sessions: int
    quarantined_entries: int


def processor_list(value: object) -> list[ProcessorStatus]:
    """Read the list of processors.

    Raises:
        FormatError: it is not such an answer.
    """
    found = []
    for item in known_members("list of processors", value, ("processors",)).items("processors", _MAX_ITEMS):
        read = known_members("processor", item, ProcessorStatus.__dataclass_fields__)
        seconds = read.value("missing_seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise read.fail("missing_seconds", "a number of seconds")
        found.append(
            ProcessorStatus(
                name=read.text("name"),
                state=cast("State", read.one_of("state", _STATES)),
                last_report_at=read.text("last_report_at"),
                missing_seconds=float(seconds),
                spooled_entries=read.integer("spooled_entries"),
                spooled_bytes=read.integer("spooled_bytes"),
                spooled_sessions=read.integer("spooled_sessions"),
                quarantined_entries=read.integer("quarantined_entries"),
            )
        )
    return found


class ProcessorsCalls(OneStorage):
    """The calls about processors; `AsyncClient` has them."""

    async def processors(self) -> list[ProcessorStatus]:
        """Return the processors that session-storage knows, by name."""
        return await self._storage.json("GET", "/api/v1/processors", lambda value, _: processor_list(value))

    async def forget_processor(self, name: str) -> None:
        """Have session-storage forget a processor: seals do not wait for what it still holds."""
        await self._storage.body("DELETE", f"/api/v1/processors/{quote(name, safe='')}", MAX_JSON_BYTES)
