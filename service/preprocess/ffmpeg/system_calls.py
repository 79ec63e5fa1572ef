"""A filter of system calls (seccomp) for the process that decodes: it may compute, use its pipes, and end.

Whoever takes over a decoder could otherwise write to the memory of other processes of the same user, trace and signal
them, and remove or rename files. Nothing removes the filter again, and programs that a process starts have it too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Sequence

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# The numbers on x86-64, and those on 64-bit ARM.
_ALLOWED = {
    # the pipes
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "close": (3, 57),
    # memory and locks
    "brk": (12, 214),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "mprotect": (10, 226),
    "madvise": (28, 233),
    "futex": (202, 98),
    # signals that it gets, and the timer of its processor time
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "setitimer": (38, 103),
    # harmless questions, and waiting
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getrandom": (318, 278),
    "gettimeofday": (96, 169),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124),
    # the end
    "exit": (60, 93),
    "exit_group": (231, 94),
}

_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_PR_SET_NO_NEW_PRIVS = 38

# Instructions of the filter, which is a BPF program.
_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS: from this position of `struct seccomp_data`
_JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_NUMBER_AT = 0
_ARCHITECTURE_AT = 4
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | errno.EPERM


def allow_only_decoding() -> bool:
    """Forbid this thread, for good, all system calls that decoding does not need. They fail with EPERM.

    Returns:
        Whether the calls are forbidden. The kernel may have no filters, and the numbers of calls are known only for
        Linux on 64-bit x86 and ARM.
    """
    machine = os.uname().machine
    if sys.platform != "linux" or sys.maxsize < 1 << 32 or machine not in _AUDIT_ARCH:
        return False
    column = list(_AUDIT_ARCH).index(machine)
    program = _program(_AUDIT_ARCH[machine], [numbers[column] for numbers in _ALLOWED.values()])
    instructions = ctypes.create_string_buffer(program)
    # struct sock_fprog: the number of instructions, of 8 bytes each, and their address
    description = ctypes.create_string_buffer(struct.pack("HP", len(program) // 8, ctypes.addressof(instructions)))
    prctl = ctypes.CDLL(None).prctl
    prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
    # Without privileges, a process may only have a filter if no program that it starts can gain any.
    prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return bool(prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(description), 0, 0) == 0)


def _program(architecture: int, numbers: Sequence[int]) -> bytes:
    """Allow the calls with these numbers, and refuse all others, also those of another architecture's interface."""
    count = len(numbers)
    return b"".join(
        [
            _instruction(_LOAD, _ARCHITECTURE_AT),
            _instruction(_JUMP_IF_EQUAL, architecture, otherwise=count + 1),
            _instruction(_LOAD, _NUMBER_AT),
            *(_instruction(_JUMP_IF_EQUAL, number, then=count - index) for index, number in enumerate(numbers)),
            _instruction(_RETURN, _REFUSE),
            _instruction(_RETURN, _ALLOW),
        ]
    )


def _instruction(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """`struct sock_filter`; a jump skips `then` or `otherwise` instructions."""
    return struct.pack("HBBI", code, then, otherwise, value)
