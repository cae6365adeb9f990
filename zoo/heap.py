"""Owns what becomes of memory that was freed: kept for what comes next; and how often Python looks for cycles in it.

glibc takes large blocks from the system one by one and gives each back when it is freed. A training step does that with
every activation, and the system fills each page with zeros before it hands it out again: at 224 px and batch 64 most of
a step of Lite0 on a processor was that.
"""

from __future__ import annotations

import ctypes
import gc

# mallopt(3): M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4
NEVER = 2**31 - 1
# What the heap grows by: a call of the system for a thousand tensors, not for each.
GROWTH = 64 * 2**20
# Python looks after 700 objects more than it had, and a batch of 32 requests under way is more than that.
OBJECTS_BEFORE_A_LOOK = 10_000


def keep_freed_memory(up_to_bytes: int | None = None) -> bool:
    """Keep what is freed, for the rest of this process and those it forks; the same numbers come out of every step.

    The process then holds as much memory as it ever used at once.

    Args:
        up_to_bytes: larger blocks are given back all the same; glibc takes 32 MiB at most.

    Returns:
        Whether the system's allocator can be told: glibc's can; where it is another one, nothing happens.
    """
    try:
        tell = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows has no library without a name
        return False
    if up_to_bytes is not None:
        return all([tell(MMAP_THRESHOLD, up_to_bytes), tell(TRIM_THRESHOLD, NEVER)])
    return all([tell(MMAP_MAX, 0), tell(TRIM_THRESHOLD, NEVER), tell(TOP_PAD, GROWTH)])


def look_for_cycles_less() -> None:
    """Let Python's garbage collector look at new objects less often, for the rest of this process.

    For programs whose usual work leaves no cycles behind: what is freed without the collector is freed as before.
    """
    gc.set_threshold(OBJECTS_BEFORE_A_LOOK, *gc.get_threshold()[1:])
