"""Confine a process with Linux namespaces, Landlock and seccomp; the process does this to itself.

This file is the main program of the sandbox's parent. It runs `worker.py`, imports nothing else of ours and needs only
the standard library. `Prison.enter` runs once, in the parent. `Walls.confine` runs in each forked child before the
child reads its first request. The package's docstring lists what each layer takes away and what it doesn't.

Every step that fails raises OSError with the step's name. No layer is ever skipped: the process ends instead.
"""

import contextlib
import ctypes
import functools
import os
import resource
import runpy
import signal
import socket
import struct
import sys
import tempfile
from pathlib import Path

LINUX = sys.platform == "linux"
NOBODY = 65_534
HOME = "/student"
DEVICES = ("null", "zero", "full", "random", "urandom")
LIBC = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_REC, MS_PRIVATE, MS_BIND, MNT_DETACH = 0x4000, 0x40000, 0x1000, 2
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
MOVE_MOUNT_F_EMPTY_PATH = 4
FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 1, 6
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 8, 22, 38

# These calls are recent, so they have the same numbers on every architecture.
MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT, MOUNT_SETATTR = 429, 430, 431, 432, 442
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446


def libc_call(name: str, *arguments: object) -> int:
    """Call a function of the C library. Raises OSError with its name."""
    return checked(name, getattr(LIBC, name)(*map(as_c, arguments)))


def system_call(name: str, number: int, *arguments: object) -> int:
    """Make a system call by number. Raises OSError with this name."""
    return checked(name, LIBC.syscall(ctypes.c_long(number), *map(as_c, arguments)))


def as_c(value: object) -> object:
    """Return an argument in its C form: int as long, str as bytes."""
    if isinstance(value, int):
        return ctypes.c_long(value)
    return value.encode() if isinstance(value, str) else value


def checked(name: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


# ------------------------------------------------------------------------------------------------------- namespaces


def enter_namespaces() -> None:
    """Enter new user, mount, network, IPC, host-name and PID namespaces; the next child is the first in the last."""
    identity = os.getuid(), os.getgid()
    reading, writing = os.pipe()
    helper = os.fork()  # the process that writes the ID maps must be outside the new namespace
    if helper == 0:
        os.close(writing)
        os.read(reading, 1)
        with contextlib.suppress(BaseException):
            write_maps(os.getppid(), *identity)
        os._exit(0)
    os.close(reading)
    libc_call("unshare", CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWPID)
    os.close(writing)
    os.waitpid(helper, 0)
    if Path("/proc/self/uid_map").read_text().split()[:1] == []:
        raise PermissionError("uid_map: this user may not map users in a namespace")
    libc_call("sethostname", "worker", 6)


def become_first_process() -> None:
    """Continue in a child, the first process of the new PID namespace; the original process waits until it ends."""
    inside = os.fork()
    if inside != 0:
        os.closerange(0, 2**16)
        os.waitpid(inside, 0)
        os._exit(0)
    libc_call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def write_maps(pid: int, uid: int, gid: int) -> None:
    """Write the user and group ID maps of a process's new namespace: its own IDs and, if it is root, nobody's."""
    more = f"\n{NOBODY} {NOBODY} 1" if uid == 0 else ""
    if uid != 0:
        Path(f"/proc/{pid}/setgroups").write_text("deny")
    Path(f"/proc/{pid}/uid_map").write_text(f"{uid} {uid} 1{more}")
    Path(f"/proc/{pid}/gid_map").write_text(f"{gid} {gid} 1{more}")


def enter_new_root(readable: list[str], hidden: list[str]) -> None:
    """Change to a new, read-only root that holds the readable paths and the devices, with `hidden` folders empty."""
    # /lib is often a link into /usr, and an environment may be a link: resolve links here, recreate them there.
    links = {path: os.path.realpath(path) for path in readable if os.path.realpath(path) != path}
    libc_call("mount", None, "/", None, MS_REC | MS_PRIVATE, None)
    libc_call("mount", "tmpfs", "/tmp", "tmpfs", 0, "size=1m,mode=755")  # noqa: S108
    os.mkdir("/tmp/old")  # noqa: S108
    libc_call("pivot_root", "/tmp", "/tmp/old")  # noqa: S108
    os.chdir("/")
    for path in [*(links.get(path, path) for path in readable), *(f"/dev/{name}" for name in DEVICES)]:
        bind_read_only(f"/old{path}", path)
    for path, real in links.items():
        if not os.path.lexists(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(real, path)
    for path in hidden:
        if Path(path).is_dir():
            libc_call("mount", "tmpfs", path, "tmpfs", 0, "size=4k,mode=555")
    os.makedirs("/etc", exist_ok=True)
    Path("/etc/passwd").write_text(f"student:x:{NOBODY}:{NOBODY}::{HOME}:/bin/false\n")
    os.makedirs(HOME, exist_ok=True)
    if not Path("/tmp").exists():  # noqa: S108  (an environment may lie below it)
        os.symlink(HOME, "/tmp")  # noqa: S108
    libc_call("umount2", "/old", MNT_DETACH)
    os.rmdir("/old")
    make_read_only("/", recursive=False)


def bind_read_only(source: str, goal: str) -> None:
    """Bind-mount a path of the old root into the new one, read-only including its submounts."""
    if Path(goal).exists() or not Path(source).exists():
        return
    if Path(source).is_dir():
        os.makedirs(goal)
    else:
        os.makedirs(os.path.dirname(goal), exist_ok=True)
        Path(goal).touch()
    libc_call("mount", source, goal, None, MS_BIND | MS_REC, None)
    if not goal.startswith("/dev/"):
        make_read_only(goal, recursive=True)


def make_read_only(path: str, *, recursive: bool) -> None:
    attributes = struct.pack("QQQQ", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, 0, 0, 0)
    if not recursive:  # of the root, which holds the devices
        attributes = struct.pack("QQQQ", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, 0, 0, 0)
    system_call("mount_setattr", MOUNT_SETATTR, AT_FDCWD, path, AT_RECURSIVE if recursive else 0, attributes, 32)


def become_nobody() -> None:
    """Drop root's user ID for good, but keep the capabilities inside the namespace, which setting up children needs."""
    libc_call("prctl", PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    set_capabilities((1 << 41) - 1)


def set_capabilities(mask: int) -> None:
    """Set the permitted and effective capabilities: none if `mask` is 0, else all that the process may have."""
    header = struct.pack("Ii", 0x20080522, 0)
    if mask:
        held = ctypes.create_string_buffer(24)
        libc_call("capget", header, held)
        low, high = struct.unpack("III III", held.raw)[1], struct.unpack("III III", held.raw)[4]
    else:
        low = high = 0
    libc_call("capset", header, struct.pack("III III", low, low, 0, high, high, 0))


def make_tmpfs(megabytes: int, entries: int) -> int:
    """Return a descriptor of a new, empty file system in memory, not mounted yet."""
    context = system_call("fsopen", FSOPEN, "tmpfs", 1)
    for key, value in (("size", f"{megabytes}m"), ("nr_inodes", str(entries)), ("mode", "700")):
        system_call("fsconfig", FSCONFIG, context, FSCONFIG_SET_STRING, key, value, 0)
    system_call("fsconfig", FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0)
    mounted = system_call("fsmount", FSMOUNT, context, 1, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
    os.close(context)
    return mounted


# --------------------------------------------------------------------------------------------------------- Landlock

WRITE_FILE, READ_DIR, ALL_V1 = 1 << 1, 1 << 3, (1 << 13) - 1
READ = (1 << 0) | (1 << 2) | READ_DIR  # execute, read a file, list a folder
ON_A_FILE = (1 << 0) | (1 << 1) | (1 << 2) | (1 << 14)


def landlock_version() -> int:
    """Return the kernel's Landlock ABI version, or 0 without Landlock."""
    found = LIBC.syscall(ctypes.c_long(LANDLOCK_CREATE_RULESET), None, ctypes.c_long(0), ctypes.c_long(1))
    return max(0, int(found))


def landlock_ruleset(readable: list[str], home: int) -> int:
    """Return a ruleset's descriptor: read below `readable`, do anything below the descriptor `home`, use no network.

    Below a readable path that ends in a slash, folders may be listed and files may not be read.
    """
    version = landlock_version()
    if version < 1:
        raise OSError("landlock: this kernel has none")
    files = ALL_V1 | (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0)
    files |= 1 << 15 if version >= 5 else 0
    attributes = struct.pack("QQQ", files, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = system_call("landlock", LANDLOCK_CREATE_RULESET, attributes[:size], size, 0)
    devices = [(f"/dev/{name}", READ | WRITE_FILE) for name in DEVICES]
    given = [(path, READ_DIR if path.endswith("/") and path != "/" else READ) for path in readable]
    for path, allowed in [*given, *devices]:
        with contextlib.suppress(FileNotFoundError):
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            mask = allowed if os.path.isdir(path) else allowed & ON_A_FILE
            system_call("landlock", LANDLOCK_ADD_RULE, rules, 1, struct.pack("=Qi", mask & files, place), 0)
            os.close(place)
    system_call("landlock", LANDLOCK_ADD_RULE, rules, 1, struct.pack("=Qi", files, home), 0)
    return rules


# ---------------------------------------------------------------------------------------------------------- seccomp

# The system calls that numerical Python needs after its start, by their numbers on (x86_64, aarch64); -1: none.
# Not `sendmsg`: descriptors that are sent and not received are counted for all children together, and fill a table.
ALLOWED = {
    "read": (0, 63), "write": (1, 64), "futex": (202, 98), "mmap": (9, 222), "munmap": (11, 215),
    "madvise": (28, 233), "mprotect": (10, 226), "brk": (12, 214), "recvfrom": (45, 207), "sendto": (44, 206),
    "close": (3, 57), "fstat": (5, 80), "newfstatat": (262, 79), "openat": (257, 56), "lseek": (8, 62),
    "ioctl": (16, 29), "fcntl": (72, 25), "poll": (7, -1), "ppoll": (271, 73), "clock_gettime": (228, 113),
    "getpid": (39, 172), "gettid": (186, 178), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "rt_sigtimedwait": (128, 137), "sigaltstack": (131, 132), "pread64": (17, 67),
    "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66), "access": (21, -1), "faccessat": (269, 48),
    "faccessat2": (439, 439), "pipe": (22, -1), "pipe2": (293, 59), "select": (23, -1), "pselect6": (270, 72),
    "sched_yield": (24, 124), "mremap": (25, 216), "dup": (32, 23), "dup2": (33, -1), "dup3": (292, 24),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_getres": (229, 114), "alarm": (37, -1),
    "getitimer": (36, 102), "setitimer": (38, 103), "shutdown": (48, 210), "recvmsg": (47, 212),
    "getsockname": (51, 204), "getpeername": (52, 205), "setsockopt": (54, 208),
    "getsockopt": (55, 209), "exit": (60, 93), "exit_group": (231, 94), "wait4": (61, 260), "waitid": (247, 95),
    "uname": (63, 160), "flock": (73, 32), "fsync": (74, 82),
    "fdatasync": (75, 83), "truncate": (76, 45), "ftruncate": (77, 46), "getdents64": (217, 61), "getcwd": (79, 17),
    "chdir": (80, 49), "fchdir": (81, 50), "rename": (82, -1), "renameat": (264, 38), "renameat2": (316, 276),
    "mkdir": (83, -1), "mkdirat": (258, 34), "rmdir": (84, -1), "link": (86, -1), "linkat": (265, 37),
    "unlink": (87, -1), "unlinkat": (263, 35), "symlink": (88, -1), "symlinkat": (266, 36), "readlink": (89, -1),
    "readlinkat": (267, 78), "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "umask": (95, 166),
    "stat": (4, -1), "lstat": (6, -1), "open": (2, -1), "creat": (85, -1), "gettimeofday": (96, 169),
    "getrlimit": (97, 163), "prlimit64": (302, 261), "getrusage": (98, 165), "sysinfo": (99, 179),
    "times": (100, 153), "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175), "getegid": (108, 177),
    "getppid": (110, 173), "getpgrp": (111, -1), "getpgid": (121, 155), "getsid": (124, 156), "setsid": (112, 157),
    "getgroups": (115, 158), "getpriority": (140, 141), "statfs": (137, 43), "fstatfs": (138, 44),
    "arch_prctl": (158, -1), "time": (201, -1), "sched_setaffinity": (203, 122), "sched_getaffinity": (204, 123),
    "sched_getparam": (143, 121), "sched_getscheduler": (145, 120), "set_tid_address": (218, 96),
    "fadvise64": (221, 223), "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, -1),
    "epoll_pwait": (281, 22), "eventfd2": (290, 19), "socketpair": (53, 199), "utimensat": (280, 88),
    "set_robust_list": (273, 99), "get_robust_list": (274, 100), "fallocate": (285, 47), "getrandom": (318, 278),
    "statx": (332, 291), "rseq": (334, 293), "copy_file_range": (326, 285), "sendfile": (40, 71),
    "membarrier": (324, 283), "getcpu": (309, 168), "restart_syscall": (219, 128), "close_range": (436, 436),
    "openat2": (437, 437), "mincore": (27, 232), "msync": (26, 227),
}  # fmt: skip
CLONE, PRCTL, CLONE3, KILL, TGKILL = (56, 220), (157, 167), (435, 435), (62, 129), (234, 131)
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
NAMESPACE_FLAGS, CLONE_THREAD = 0x7E020080, 0x00010000
HARMLESS_PRCTL = (3, 15, 16, 0x53564D41)  # PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_SET_VMA
LOAD, JUMP_EQUAL, JUMP_SET, JUMP_AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
RETURN_ALLOW, RETURN_ERRNO = 0x7FFF0000, 0x00050000
EPERM, ENOSYS = 1, 38


@functools.cache
def seccomp_filter(machine: str, only: int | None) -> bytes:
    """Return the BPF program that allows the listed system calls and makes all others fail.

    `only` is the PID of a process without its own PID namespace: it may start no process, and may signal only itself.
    None stands for a process with such a namespace: there it may start and signal processes.
    """
    column, architecture = MACHINES[machine]
    allow, refuse = (RETURN, 0, 0, RETURN_ALLOW), (RETURN, 0, 0, RETURN_ERRNO | EPERM)
    lines = [
        (LOAD, 0, 0, 4), (JUMP_EQUAL, 1, 0, architecture), refuse,
        (LOAD, 0, 0, 0), (JUMP_AT_LEAST, 0, 1, 0x40000000), refuse,  # numbers of the x32 ABI
        (JUMP_EQUAL, 0, 1, CLONE3[column]), (RETURN, 0, 0, RETURN_ERRNO | ENOSYS),  # unreadable flags: libc uses clone
    ]  # fmt: skip
    for numbers in ALLOWED.values():
        if numbers[column] >= 0:
            lines += [(JUMP_EQUAL, 0, 1, numbers[column]), allow]
    # The flags of clone are its first argument: refuse new namespaces, and with `only` everything but threads.
    clone = [(LOAD, 0, 0, 16), (JUMP_SET, 0, 1, NAMESPACE_FLAGS), refuse]
    clone += [allow] if only is None else [(JUMP_SET, 0, 1, CLONE_THREAD), allow, refuse]
    lines += [(JUMP_EQUAL, 0, len(clone), CLONE[column]), *clone]
    for number in (KILL[column], TGKILL[column]):
        itself = [(LOAD, 0, 0, 16), (JUMP_EQUAL, 0, 1, only or 0), allow, refuse]
        lines += [(JUMP_EQUAL, 0, 1, number), allow] if only is None else [(JUMP_EQUAL, 0, 4, number), *itself]
    if only is None and column == 0:
        lines += [(JUMP_EQUAL, 0, 1, 57), allow, (JUMP_EQUAL, 0, 1, 58), allow]  # fork, vfork
    harmless = [(LOAD, 0, 0, 16)]
    for option in HARMLESS_PRCTL:
        harmless += [(JUMP_EQUAL, 0, 1, option), allow]
    lines += [(JUMP_EQUAL, 0, len(harmless) + 1, PRCTL[column]), *harmless, refuse, refuse]
    return b"".join(struct.pack("HBBI", *line) for line in lines)


def install_seccomp(only: int | None) -> None:
    """Install the filter for good; a refused system call fails with PermissionError."""
    text = seccomp_filter(os.uname().machine, only)
    instructions = ctypes.create_string_buffer(text)
    head = struct.pack("HxxxxxxP", len(text) // 8, ctypes.addressof(instructions))
    libc_call("prctl", PR_SET_SECCOMP, 2, head, 0, 0)


# ------------------------------------------------------------------------------------------------- parent and child


class Prison:
    """The confinement of the parent; `layers` holds some of `namespaces`, `landlock` and `seccomp`.

    Without namespaces, children get their folders in the folder `base`.
    """

    def __init__(self, layers: list[str], base: str, readable: list[str], hidden: list[str]) -> None:
        self.layers, self.base, self.readable, self.hidden = layers, base, readable, hidden
        self.own_pids = -1

    def enter(self) -> None:
        """Confine the parent. Call it once, after the imports and before the first fork."""
        if "namespaces" not in self.layers:
            return
        root = os.getuid() == 0
        enter_namespaces()
        become_first_process()
        self.own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        enter_new_root(self.readable, self.hidden)
        if root:
            become_nobody()
        os.environ.update(USER="student", LOGNAME="student")
        if "seccomp" in self.layers:
            seccomp_filter(os.uname().machine, None)  # fills the cache before any fork
        libc_call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
        libc_call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # becoming nobody cleared it

    def make_walls(self, limits: dict[str, int]) -> "Walls":
        """Prepare the confinement of the next child.

        As much as possible is done before the fork, since each memory page that a child writes is copied first.
        """
        folder, namespaces = HOME, "namespaces" in self.layers
        if namespaces:
            descriptor = make_tmpfs(limits["megabytes"], limits["entries"])
            libc_call("setns", self.own_pids, CLONE_NEWPID)
            libc_call("unshare", CLONE_NEWPID)  # the next child is the first process of a new PID namespace
        else:
            folder = tempfile.mkdtemp(dir=self.base)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        os.environ.update(HOME=folder, TMPDIR=folder)
        tempfile.tempdir = folder  # replaces the cached value
        readable = ["/"] if namespaces else self.readable
        ruleset = landlock_ruleset(readable, descriptor) if "landlock" in self.layers else -1
        return Walls(self.layers, folder, limits, descriptor, ruleset)


class Walls:
    """The confinement of one child: its folder's descriptor, which the grader gets too, and its Landlock ruleset."""

    def __init__(self, layers: list[str], folder: str, limits: dict[str, int], descriptor: int, ruleset: int) -> None:
        self.layers, self.folder, self.limits = layers, folder, limits
        self.folder_descriptor, self.ruleset = descriptor, ruleset

    def close(self) -> None:
        """Close the descriptors in the parent, after the fork."""
        for descriptor in (self.folder_descriptor, self.ruleset):
            if descriptor >= 0:
                os.close(descriptor)

    def confine(self, channel: int) -> None:
        """Confine this process for good to its folder, the readable paths and the descriptor `channel`."""
        namespaces = "namespaces" in self.layers
        os.setsid()
        if namespaces:
            libc_call("unshare", CLONE_NEWNS)
            system_call("move_mount", MOVE_MOUNT, self.folder_descriptor, "", AT_FDCWD, HOME, MOVE_MOUNT_F_EMPTY_PATH)
        os.chdir(self.folder)
        for name, limit in self.limits.items():
            if name.startswith("RLIMIT_"):
                with contextlib.nullcontext() if LINUX else contextlib.suppress(OSError, ValueError):
                    resource.setrlimit(getattr(resource, name), (limit, limit))
        if LINUX:
            libc_call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if "landlock" in self.layers:
            system_call("landlock", LANDLOCK_RESTRICT_SELF, self.ruleset, 0)
        os.closerange(3, channel)
        os.closerange(channel + 1, 2**16)
        if namespaces:
            libc_call("unshare", CLONE_NEWUSER)  # RLIMIT_NPROC then counts this child's processes and threads alone
        if self.layers:
            set_capabilities(0)
        if LINUX:
            libc_call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if "seccomp" in self.layers:
            install_seccomp(None if namespaces else os.getpid())


if __name__ == "__main__":
    site, worker, control, layers, base, *paths = sys.argv[1:]
    cut = paths.index("--")
    sys.path.append(site)
    sys.argv = [worker]
    prison = Prison([layer for layer in layers.split(",") if layer], base, paths[:cut], paths[cut + 1 :])
    code = runpy.run_path(worker, run_name="worker")
    code["preload"]()
    code["run_parent"](socket.socket(fileno=int(control)), prison)
