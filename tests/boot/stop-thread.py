"""Stops one thread of a process for good, as a debugger would: `stop-thread.py PID NAME`. Ends when the thread
does."""

import ctypes
import os
import sys

SEIZE, INTERRUPT, WALL = 0x4206, 0x4207, 0x40000000
pid, name = int(sys.argv[1]), sys.argv[2]


def name_of(thread):
    with open(f"/proc/{pid}/task/{thread}/comm") as comm:
        return comm.read().strip()


[thread] = [int(t) for t in os.listdir(f"/proc/{pid}/task") if name_of(t) == name]
libc = ctypes.CDLL(None, use_errno=True)
for request in SEIZE, INTERRUPT:
    if libc.ptrace(request, thread, None, None) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
while True:
    _, status = os.waitpid(thread, WALL)
    if not os.WIFSTOPPED(status):
        break
