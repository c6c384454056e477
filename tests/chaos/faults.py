"""Faults, done to a running stack and undone again."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from eth_account import Account
from eth_utils.address import to_checksum_address

from scripts.devstack.clock import HostClock
from scripts.devstack.mongod import Mongod
from scripts.devstack.partition import cut_off
from scripts.devstack.process import StartError
from scripts.devstack.replica_set import ReplicaSet
from scripts.devstack.replicas import Replica
from scripts.devstack.stack import Part, Stack
from tests.chaos.schedule import Fault, Kind
from tests.chaos.wire import Condition, Wire

_GWEI: Final = 10**9
_BALLAST: Final = "ballast"
_PIECE_BYTES: Final = 1024 * 1024
_LEAP_SECONDS: Final = 900
"""How far a clock leaps for each second that it stays wrong: minutes to hours."""


class Saboteur:
    """Does what a schedule says. Each method returns when the fault is over and the part is there again."""

    def __init__(
        self,
        stack: Stack,
        database: ReplicaSet,
        *,
        services: dict[str, Replica],
        wires: dict[str, Wire],
        clocks: dict[str, HostClock],
        volumes: dict[str, Path],
        keep_free: int,
    ) -> None:
        """Services are named `processor-1`, `processor-2` and `storage`, clocks by kind of service.

        Wires are named `processor-N` (recorders to a processor), `storage-N` (that processor to storage) and `chain`,
        volumes `spool` and `database`. Of the database's volume `keep_free` bytes are left when it is full: mongod ends
        without any.
        """
        self._stack, self._database, self._wires, self._clocks = stack, database, wires, clocks
        self._services = services
        self._volumes, self._keep_free = volumes, keep_free

    async def do(self, fault: Fault) -> None:
        """Do a fault, and undo it."""
        await self._acts()[fault.kind](fault.seconds)

    def _acts(self) -> dict[Kind, Callable[[float], Awaitable[None]]]:
        service, primary, wire, clock = self._service, self._primary, self._wire, self._clock
        return {
            Kind.PROCESSOR_1_KILL: partial(service, "processor-1", signal.SIGKILL),
            Kind.PROCESSOR_1_TERM: partial(service, "processor-1", signal.SIGTERM),
            Kind.PROCESSOR_1_STOP: partial(self._service_pauses, "processor-1"),
            Kind.PROCESSOR_2_KILL: partial(service, "processor-2", signal.SIGKILL),
            Kind.PROCESSOR_2_TERM: partial(service, "processor-2", signal.SIGTERM),
            Kind.PROCESSOR_2_STOP: partial(self._service_pauses, "processor-2"),
            Kind.STORAGE_KILL: partial(service, "storage", signal.SIGKILL),
            Kind.STORAGE_TERM: partial(service, "storage", signal.SIGTERM),
            Kind.STORAGE_STOP: partial(self._service_pauses, "storage"),
            Kind.PRIMARY_KILL: partial(primary, signal.SIGKILL),
            Kind.PRIMARY_TERM: partial(primary, signal.SIGTERM),
            Kind.PRIMARY_STOP: self._primary_pauses,
            Kind.PRIMARY_CUT_OFF: self._primary_is_cut_off,
            Kind.PRIMARY_STEPS_DOWN: self._steps_down,
            Kind.SECONDARY_KILL: self._secondary,
            Kind.CHAIN_STOP: partial(self._pause, "anvil"),
            Kind.CHAIN_RESTART: self._chain_restarts,
            Kind.CHAIN_REORGANISES: self._reorganises,
            Kind.CHAIN_DROPS: self._drops,
            Kind.CHAIN_DEAR: self._dear,
            Kind.CHAIN_BROKE: self._broke,
            Kind.CHAIN_NONCE_TAKEN: self._nonce_taken,
            Kind.CHAIN_FORGETS: self._forgets,
            Kind.RECORDERS_1_CUT: partial(wire, "processor-1", Condition.CUT),
            Kind.RECORDERS_1_DEAF: partial(wire, "processor-1", Condition.DEAF),
            Kind.RECORDERS_2_CUT: partial(wire, "processor-2", Condition.CUT),
            Kind.RECORDERS_2_DEAF: partial(wire, "processor-2", Condition.DEAF),
            Kind.STORAGE_1_CUT: partial(wire, "storage-1", Condition.CUT),
            Kind.STORAGE_1_STALLED: partial(wire, "storage-1", Condition.STALLED),
            Kind.STORAGE_1_DEAF: partial(wire, "storage-1", Condition.DEAF),
            Kind.STORAGE_2_CUT: partial(wire, "storage-2", Condition.CUT),
            Kind.STORAGE_2_STALLED: partial(wire, "storage-2", Condition.STALLED),
            Kind.STORAGE_2_DEAF: partial(wire, "storage-2", Condition.DEAF),
            Kind.RPC_CUT: partial(wire, "chain", Condition.CUT),
            Kind.RPC_STALLED: partial(wire, "chain", Condition.STALLED),
            Kind.RPC_DEAF: partial(wire, "chain", Condition.DEAF),
            Kind.SPOOL_FULL: partial(self._fill, "spool", 0),
            Kind.DATABASE_FULL: partial(self._fill, "database", self._keep_free),
            Kind.PROCESSOR_AHEAD: partial(clock, "processor", _LEAP_SECONDS),
            Kind.PROCESSOR_BACK: partial(clock, "processor", -_LEAP_SECONDS),
            Kind.STORAGE_AHEAD: partial(clock, "storage", _LEAP_SECONDS),
            Kind.STORAGE_BACK: partial(clock, "storage", -_LEAP_SECONDS),
        }

    async def _service(self, name: str, number: signal.Signals, seconds: float) -> None:
        service = self._services[name]
        await asyncio.to_thread(service.kill, number)
        await asyncio.sleep(seconds)
        for _ in range(3):
            try:
                await asyncio.to_thread(service.start)
            except StartError:  # what it waits for may be away itself: then it is up, or will be at the next attempt
                if service.process.alive:
                    return
            else:
                return
        raise StartError(name, "three times")

    async def _service_pauses(self, name: str, seconds: float) -> None:
        self._services[name].kill(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._services[name].kill(signal.SIGCONT)

    async def _pause(self, part: Part, seconds: float) -> None:
        self._stack.kill(part, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._stack.kill(part, signal.SIGCONT)

    async def _some_primary(self) -> Mongod:
        while (primary := await asyncio.to_thread(self._database.primary)) is None:
            await asyncio.sleep(0.2)
        return primary

    async def _member(self, member: Mongod, number: signal.Signals, seconds: float) -> None:
        await asyncio.to_thread(member.stop, number)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(member.start)

    async def _primary(self, number: signal.Signals, seconds: float) -> None:
        await self._member(await self._some_primary(), number, seconds)

    async def _secondary(self, seconds: float) -> None:
        primary = await self._some_primary()
        secondary = next(member for member in self._database.members if member is not primary)
        await self._member(secondary, signal.SIGKILL, seconds)

    async def _primary_pauses(self, seconds: float) -> None:
        process = (await self._some_primary()).process
        assert process is not None
        process.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        process.send(signal.SIGCONT)

    async def _primary_is_cut_off(self, seconds: float) -> None:
        with cut_off((await self._some_primary()).port):
            await asyncio.sleep(seconds)

    async def _steps_down(self, seconds: float) -> None:
        await asyncio.to_thread(self._database.step_down, max(1, int(seconds)))
        await asyncio.sleep(seconds)

    async def _chain_restarts(self, seconds: float) -> None:
        await asyncio.to_thread(self._stack.kill, "anvil", signal.SIGTERM)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self._stack.resume, "anvil")

    async def _call(self, method: str, *parameters: object) -> object:
        return await asyncio.to_thread(self._stack.anvil.call, method, *parameters)

    async def _reorganises(self, seconds: float) -> None:
        """The last blocks are replaced by others, without their transactions."""
        with suppress(RuntimeError):  # there are not so many blocks yet
            await self._call("anvil_reorg", 1 + int(seconds) % 3, [])
        await asyncio.sleep(seconds)

    async def _forgets(self, seconds: float) -> None:
        """The node is put back to its state of some seconds before, and goes on from there."""
        before = await self._call("evm_snapshot")
        await asyncio.sleep(seconds)
        await self._call("evm_revert", before)

    async def _drops(self, seconds: float) -> None:
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            await self._call("anvil_dropAllTransactions")
            await asyncio.sleep(0.1)

    async def _dear(self, seconds: float) -> None:
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            await self._call("anvil_setNextBlockBaseFeePerGas", hex(10_000 * _GWEI))
            await asyncio.sleep(0.3)
        await self._call("anvil_setNextBlockBaseFeePerGas", hex(_GWEI))

    async def _broke(self, seconds: float) -> None:
        had = await self._call("eth_getBalance", self._stack.publisher, "latest")
        await self._call("anvil_setBalance", self._stack.publisher, "0x0")
        await asyncio.sleep(seconds)
        await self._call("anvil_setBalance", self._stack.publisher, had)

    async def _nonce_taken(self, seconds: float) -> None:
        """Somebody else who has the publisher's key sends coins with the next nonce."""
        nonce = int(str(await self._call("eth_getTransactionCount", self._stack.publisher, "latest")), 16)
        transfer = {
            "type": 2,
            "chainId": self._stack.chain_id,
            "to": to_checksum_address(self._stack.anvil.accounts[2][0]),
            "value": 1,
            "gas": 21_000,
            "nonce": nonce,
            "maxFeePerGas": 150 * _GWEI,
            "maxPriorityFeePerGas": 20 * _GWEI,
        }
        signed = Account.sign_transaction(transfer, self._stack.anvil.accounts[1][1])
        with suppress(RuntimeError):  # one of ours is there already, and pays more
            await self._call("eth_sendRawTransaction", "0x" + bytes(signed.raw_transaction).hex())
        await asyncio.sleep(seconds)

    async def _wire(self, name: str, condition: Condition, seconds: float) -> None:
        self._wires[name].become(condition)
        await asyncio.sleep(seconds)
        self._wires[name].become(Condition.WHOLE)

    async def _clock(self, name: str, leap_seconds: float, seconds: float) -> None:
        """The clock leaps, and leaps again when somebody sets it right."""
        self._clocks[name].leap(leap_seconds * seconds)
        await asyncio.sleep(seconds)
        self._clocks[name].leap(0)

    async def _fill(self, volume: str, keep_free: int, seconds: float) -> None:
        ballast = self._volumes[volume] / _BALLAST
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:  # what is freed meanwhile is taken as well
            await asyncio.to_thread(_fill_up, ballast, keep_free)
            await asyncio.sleep(0.5)
        ballast.unlink()


def _fill_up(ballast: Path, keep_free: int) -> None:
    with ballast.open("ab") as file, suppress(OSError):
        while True:
            found = os.statvfs(ballast.parent)
            spare = found.f_bavail * found.f_frsize - keep_free
            if spare <= 0:
                return
            file.write(bytes(min(spare, _PIECE_BYTES)))
            file.flush()
