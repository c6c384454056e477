"""An event loop whose time passes when nothing is left to do, and whose threads are turns of its own.

So a test that waits takes no time, and does the same each time. There is nothing that it could hear of from outside.
"""

import asyncio
import random
import selectors
from collections.abc import Callable
from typing import Any


class _Selector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise AssertionError("everybody waits for what never happens")
        if timeout > 0:
            self.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs what is for threads after some turns."""

    def __init__(self, random_: random.Random) -> None:
        self._passing = _Selector()
        self._random = random_
        super().__init__(self._passing)

    def time(self) -> float:
        """Seconds of its own."""
        return self._passing.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Run it here, some turns later."""
        done = self.create_future()

        def run(turns: int) -> None:
            if turns:
                self.call_soon(run, turns - 1)
                return
            if done.cancelled():  # a thread that has begun goes on
                func(*args)
                return
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001 - it is for the one who waits
                done.set_exception(error)
            else:
                done.set_result(result)

        self.call_soon(run, self._random.randrange(6))
        return done


class LoopTime:
    """In the place of the module `time`: the loop's."""

    def monotonic(self) -> float:
        """Seconds of the loop that runs."""
        return asyncio.get_running_loop().time()
