"""How the process uses memory: what is never freed is not looked through, and what was freed is kept for the next body.

Bodies come and go by the thousand. With the allocator's defaults each of them is taken from the kernel and given back,
page by page, which costs more than copying it; and each full collection looks through all that the libraries have
loaded, on the event loop.
"""

import ctypes
import gc
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEEP_BYTES: Final = 32 * 1024 * 1024
_MAPPED_FROM_BYTES: Final = 32 * 1024 * 1024
_YOUNG_OBJECTS: Final = 20_000


def settle() -> None:
    """Call once, when everything is loaded and before requests come."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 50)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's; others have none
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)
