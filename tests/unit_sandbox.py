"""What a systemd unit leaves to its process, made by hand: for machines where systemd is not the one who starts things.

    python tests/unit_sandbox.py UNIT UID WRITABLE[:WRITABLE…] COMMAND…

The unit's own settings decide: its system calls and address families by seccomp, as systemd does it; a file system that
is read-only but for some folders; another user without capabilities. Only `CAP_DAC_READ_SEARCH` stays, since the Python
of this machine may be somebody's own. Not made: hidden folders of other users (the checkout may be in one), devices,
namespaces, the kernel's settings.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
EQUAL, GREATER = 4, 6
LAST = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from unit_sandbox import filter_calls
calls, sockets, code = json.loads(sys.argv[2])
filter_calls(None if calls is None else set(calls), set(sockets), code)
os.execvp(sys.argv[3], sys.argv[3:])
"""
NEEDED = ("systemd-analyze", "unshare", "setpriv", "mount")


class Compare(ctypes.Structure):
    """One comparison of an argument of a system call."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def missing() -> str:
    """Return what this machine lacks for a sandbox; empty where it lacks nothing."""
    if absent := [one for one in NEEDED if shutil.which(one) is None]:
        return f"{', '.join(absent)} not on this machine"
    if os.geteuid() != 0:
        return "only root may make a sandbox"
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return "libseccomp is not on this machine"
    tried = subprocess.run(
        ("unshare", "--mount", "mount", "--make-rprivate", "/"), capture_output=True, check=False
    )
    return "" if tried.returncode == 0 else "mounts are not allowed here"


def settings_of(unit: Path) -> list[tuple[str, str]]:
    """Return the settings of a unit, in their order."""
    lines = (line.partition("=") for line in unit.read_text().splitlines())
    return [(key, value) for key, equal, value in lines if equal and key[:1] != "#"]


def calls_in(name: str) -> set[str]:
    """Return the system calls that systemd means by a name, such as `@system-service`."""
    if not name.startswith("@"):
        return {name}
    done = subprocess.run(
        ("systemd-analyze", "syscall-filter", name), capture_output=True, text=True, check=True
    )
    words = [line.split("#")[0].strip() for line in done.stdout.splitlines()[1:]]
    return {call for word in words if word for call in calls_in(word)}


def allowed(unit: Path) -> set[str] | None:
    """Return the system calls that a unit allows; None where it says nothing."""
    found: set[str] | None = None
    for key, value in settings_of(unit):
        if key == "SystemCallFilter":
            named = set[str]().union(*(calls_in(word) for word in value.lstrip("~").split()))
            if value.startswith("~"):
                found = (found or set()) - named
            else:
                found = (found or calls_in("@default")) | named
    return found


def families(unit: Path) -> set[int]:
    """Return the address families that a unit allows."""
    return {
        int(getattr(socket, word))
        for key, value in settings_of(unit)
        if key == "RestrictAddressFamilies"
        for word in value.split()
    }


def filter_calls(calls: set[str] | None, sockets: set[int], code: int) -> None:
    """Give up all other system calls and sockets, for this process and all that it becomes.

    Args:
        calls: What it may call; None is everything.
        sockets: Families that it may open; none is all.
        code: What it gets for other calls; 0 is its end.
    """
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    add = library.seccomp_rule_add_array
    add.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Compare)]
    opening = library.seccomp_syscall_resolve_name(b"socket")
    if sockets:
        context = library.seccomp_init(ALLOW)
        refused = [Compare(0, EQUAL, one, 0) for one in range(max(sockets)) if one not in sockets]
        for one in [*refused, Compare(0, GREATER, max(sockets), 0)]:
            assert add(context, REFUSE | errno.EAFNOSUPPORT, opening, 1, ctypes.byref(one)) == 0
        assert library.seccomp_load(context) == 0
    if calls is not None:
        context = library.seccomp_init(REFUSE | code if code else KILL)
        for name in calls:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number >= 0:  # below: another processor's
                assert add(context, ALLOW, number, 0, None) == 0
        assert library.seccomp_load(context) == 0


def confine(writable: list[str]) -> None:
    """Make everything read-only but some folders and the kernel's own; /var/tmp is empty, and private."""
    subprocess.run(("mount", "--make-rprivate", "/"), check=True)
    subprocess.run(("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/var/tmp"), check=True)
    writable = [*writable, "/var/tmp"]
    for folder in writable:
        subprocess.run(("mount", "--bind", folder, folder), check=True)
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for place in mounts:
        place = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), place)
        if not place.startswith(("/proc", "/sys", "/dev")) and place not in writable:
            subprocess.run(("mount", "-o", "remount,bind,ro", place), capture_output=True, check=False)


def main(unit: Path, user: str, writable: list[str], command: list[str]) -> None:
    """Become the command, in what the unit leaves."""
    if os.environ.get("SANDBOX") != "1":
        os.environ["SANDBOX"] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, __file__, *sys.argv[1:]])
    said = dict(settings_of(unit))
    code = getattr(errno, said["SystemCallErrorNumber"]) if "SystemCallErrorNumber" in said else 0
    calls = allowed(unit)  # asked before there is nothing to ask
    told = json.dumps([None if calls is None else sorted(calls), sorted(families(unit)), code])
    confine(writable)
    del os.environ["SANDBOX"]
    kept = [f"+{one.removeprefix('CAP_').lower()}" for one in said.get("CapabilityBoundingSet", "").split()]
    words = ["setpriv", f"--bounding-set={','.join(['-all', '+dac_read_search', *kept])}"]
    if user != "0":
        words += [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    words += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    os.umask(int(said.get("UMask", "0022"), 8))
    os.execvp(words[0], [*words, sys.executable, "-c", LAST, str(Path(__file__).parent), told, *command])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(":"), sys.argv[4:])
