"""glibc gives memory back to the system after each step and asks for it again: here it keeps it.

Seen with glibc 2.36 and torch 2.5.1: a step of `gpt_bytes` on a CPU took 1,100 to 3,700 page faults and 5 to 12 ms of
system time; with this call 0 to 6 faults and 0.1 to 0.3 ms. tests/worker/compat/test_glibc_malloc.py counts them.

The environment variables MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ do the same (0 to 6 faults), but glibc reads
them when a process starts. Ray sets an actor's environment through its `runtime_env`, which then has no use for the
processes that Ray keeps ready: two actors were there after 6 to 13 s instead of 2 to 4 s. So it is a call.
"""

import ctypes
from contextlib import suppress

# Of glibc's malloc.h.
M_TRIM_THRESHOLD = -1  # how many free bytes at the heap's end are kept
M_MMAP_THRESHOLD = -3  # from which size on memory comes from the system and goes back to it at once; 32 MB at most


def keep_freed_memory() -> None:
    """Have glibc keep what a step frees for the next one. Does nothing where there is another C library."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
