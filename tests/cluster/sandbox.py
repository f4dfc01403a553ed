#!/usr/bin/env python3
"""Runs a command under the restrictions of the shipped unit, on a host where systemd does not run.

sandbox.py UNIT USER KEEP[,KEEP...] -- COMMAND...

KEEP are directories that stay as they are and writable: the service's own, and that of the Slurm to be reached. Needs root, Linux
6.3 and libseccomp. Every setting of the unit that restricts is either put in force here in the same way as systemd 252 does (see
APPLIED), or named on standard error as not proved; a setting that is in neither list ends the run, so that none is forgotten.
"""

import ctypes
import ctypes.util
import os
import pwd
import subprocess
import sys

APPLIED = {
    "NoNewPrivileges", "CapabilityBoundingSet", "AmbientCapabilities", "ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices",
    "PrivateUsers", "PrivateMounts", "ProtectProc", "ProcSubset", "MemoryDenyWriteExecute", "RestrictAddressFamilies",
    "RestrictNamespaces", "SystemCallFilter", "SystemCallErrorNumber", "UMask", "LimitNOFILE", "LimitCORE", "User", "Group",
}
NOT_PROVED = {
    "DevicePolicy", "ProtectClock", "ProtectControlGroups", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules",
    "ProtectKernelTunables", "LockPersonality", "RestrictRealtime", "RestrictSUIDSGID", "RemoveIPC", "KeyringMode",
    "SystemCallArchitectures", "TasksMax",
}
# What else a [Service] section has restricts nothing of a child.
OTHER = {
    "Type", "NotifyAccess", "ExecStart", "ExecReload", "WatchdogSec", "Restart", "RestartSec", "RestartPreventExitStatus", "KillMode",
    "TimeoutStartSec", "TimeoutStopSec", "StateDirectory", "StateDirectoryMode", "RuntimeDirectory", "RuntimeDirectoryMode",
    "LoadCredential",
}
DEVICES = ["null", "zero", "full", "random", "urandom", "tty"]
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}
EPERM, EAFNOSUPPORT = 1, 97
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
NAMESPACES = [0x00000080, CLONE_NEWNS, 0x02000000, 0x04000000, 0x08000000, CLONE_NEWUSER, 0x20000000, 0x40000000]
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_MDWE = 24, 38, 65
ALLOW = 0x7FFF0000
MASKED_EQUAL, EQUAL = 7, 4

libc = ctypes.CDLL(None, use_errno=True)


def checked(result, what):
    if result < 0:
        raise SystemExit(f"sandbox: {what}: {os.strerror(ctypes.get_errno())}")


def prctl(option, value, what):
    unused = ctypes.c_ulong(0)
    checked(libc.prctl(option, ctypes.c_ulong(value), unused, unused, unused), what)


def settings(unit):
    """The keys of [Service] with all their values."""
    found, inside = {}, False
    for line in open(unit, encoding="utf-8"):
        line = line.strip()
        if line.startswith("["):
            inside = line == "[Service]"
        elif inside and line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    unknown = set(found) - APPLIED - NOT_PROVED - OTHER
    if unknown:
        raise SystemExit(f"sandbox: the unit has settings that this script does not know: {', '.join(sorted(unknown))}")
    print(f"sandbox: not proved here: {', '.join(sorted(set(found) & NOT_PROVED))}", file=sys.stderr)
    return found


def mount(*words):
    subprocess.run(["mount", *words], check=True)


def mounts(keep):
    """Everything read-only but KEEP, and no homes, devices, /tmp or processes of others."""
    checked(libc.unshare(CLONE_NEWNS), "a mount namespace")
    mount("--make-rprivate", "/")
    aside = "/run/sandbox.keep"
    os.makedirs(aside, exist_ok=True)
    mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", aside)
    for number, path in enumerate(keep):
        os.mkdir(f"{aside}/{number}")
        mount("--rbind", path, f"{aside}/{number}")
    for path in ["/tmp", "/var/tmp"]:
        mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", path)
    for path in ["/home", "/root", "/run/user"]:
        if os.path.isdir(path):
            mount("-t", "tmpfs", "-o", "mode=0000,ro", "tmpfs", path)
    devices = f"{aside}/devices"
    os.mkdir(devices)
    mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", devices)
    for name in DEVICES:
        open(f"{devices}/{name}", "w", encoding="utf-8").close()
        mount("--bind", f"/dev/{name}", f"{devices}/{name}")
    mount("--rbind", devices, "/dev")
    points = [line.split()[4] for line in open("/proc/self/mountinfo", encoding="utf-8")]
    ours = ("/proc", "/sys", "/dev", "/tmp", "/var/tmp", "/home", "/root", "/run/user", aside)
    for point in points:
        if not any(point == path or point.startswith(path + "/") for path in ours):
            mount("-o", "remount,bind,ro", point)
    for number, path in enumerate(keep):
        os.makedirs(path, exist_ok=True)
        mount("--rbind", f"{aside}/{number}", path)
    mount("-t", "proc", "-o", "hidepid=invisible,subset=pid", "proc", "/proc")


def private_users(user):
    """A user namespace with root and the user's own numbers; all others are nobody there."""
    ready_read, ready_write = os.pipe()
    done_read, done_write = os.pipe()
    parent = os.getpid()
    if os.fork() == 0:
        os.read(ready_read, 1)
        for kind, number in [("uid", user.pw_uid), ("gid", user.pw_gid)]:
            with open(f"/proc/{parent}/{kind}_map", "w", encoding="utf-8") as out:
                out.write(f"0 0 1\n{number} {number} 1\n")
        os.write(done_write, b"1")
        os._exit(0)
    checked(libc.unshare(CLONE_NEWUSER), "a user namespace")
    os.write(ready_write, b"1")
    os.read(done_read, 1)
    os.wait()


def members(name, seen):
    """System calls of a set of systemd's."""
    if not name.startswith("@"):
        return {name}
    if name in seen:
        return set()
    seen.add(name)
    listed = subprocess.run(["systemd-analyze", "syscall-filter", name], check=True, capture_output=True, text=True)
    words = [line.strip() for line in listed.stdout.splitlines()[1:]]
    return set().union(*(members(word, seen) for word in words if word and not word.startswith("#")))


def filtered(unit):
    """System calls that the unit leaves, as systemd reads its lines: the first one allows, those with ~ take away."""
    calls = members("@default", set())
    for line in unit["SystemCallFilter"]:
        take = line.startswith("~")
        words = line.lstrip("~").split()
        named = set().union(*(members(word, set()) for word in words))
        calls = calls - named if take else calls | named
    return calls


class Comparison(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def seccomp(unit, calls):
    """Installs the filter of system calls, address families and namespaces."""
    lib = ctypes.CDLL(ctypes.util.find_library("seccomp") or "libseccomp.so.2", use_errno=True)
    lib.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(0x00050000 | EPERM)))

    def rule(action, name, *comparisons):
        number = lib.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            return
        array = (Comparison * len(comparisons))(*comparisons)
        result = lib.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(comparisons), array)
        if result < 0:
            raise SystemExit(f"sandbox: no rule for {name}: {os.strerror(-result)}")

    for name in sorted(calls - {"socket", "clone", "clone3", "unshare", "setns"}):
        rule(ALLOW, name)
    for family in unit["RestrictAddressFamilies"][0].split():
        rule(ALLOW, "socket", Comparison(0, EQUAL, FAMILIES[family], 0))
    every = 0
    for flag in NAMESPACES:
        every |= flag
    rule(ALLOW, "clone", Comparison(0, MASKED_EQUAL, every, 0))
    # As systemd does, so that the C library falls back to clone, whose flags can be seen.
    rule(0x00050000 | 38, "clone3")
    checked(lib.seccomp_load(context), "the filter of system calls")


def main():
    unit_path, name, keep = sys.argv[1:4]
    command = sys.argv[5:]
    unit = settings(unit_path)
    user = pwd.getpwnam(name)
    calls = filtered(unit)
    mounts([os.path.realpath(path) for path in keep.split(",")])
    private_users(user)
    os.chdir("/")
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0)
    os.setgroups([])
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    os.umask(int(unit["UMask"][0], 8))
    prctl(PR_SET_NO_NEW_PRIVS, 1, "no new privileges")
    prctl(PR_SET_MDWE, 1, "no memory both writable and executable")
    seccomp(unit, calls)
    os.execvp(command[0], command)


main()
