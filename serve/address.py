"""Owns a server's address: claiming it, how it is written, how many connections it may have; it answers on none."""

from __future__ import annotations

import errno
import os
import socket

from zoo.errors import ZooError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Connections at most unless somebody says how many; and open files that are none: libraries, the engine, logs.
MAX_CONNECTIONS, OTHER_FILES = 10_000, 128


def reachable(host: str) -> str:
    """Where a person on this machine reaches a server: 0.0.0.0 and :: mean every address, also the loopback."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def in_url(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def most_connections(asked: int | None) -> int:
    """How many connections there may be; this process's limit of open files is raised for them.

    Args:
        asked: None takes `MAX_CONNECTIONS`, or as many as the limit allows.

    Raises:
        ZooError: the system allows fewer than were asked for.
    """
    wanted = asked or MAX_CONNECTIONS
    most = _may_open(wanted + OTHER_FILES) - OTHER_FILES
    if asked and most < asked:
        raise ZooError(
            f"--max-connections {asked}: this process may have {max(1, most)} at most.",
            "`ulimit -Hn`, or LimitNOFILE of systemd, says how many files it may open: raise that.",
        )
    return max(1, most)


def _may_open(files: int) -> int:
    """How many files may be open, `files` at most; the soft limit is raised as far as it may be and needs to."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return files
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < files:
        soft = files if hard == resource.RLIM_INFINITY else min(files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return files if soft == resource.RLIM_INFINITY else min(soft, files)


def bind(host: str, port: int, option: str = "--port") -> socket.socket:
    """Claim the address before anything slow happens; port 0 takes a free one. `option` is what says the port.

    Raises:
        ZooError: in use, not allowed, or not an address of this machine.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise ZooError(f"{host} is not an address: {error.strerror}.", "Use --host 127.0.0.1 or 0.0.0.0.") from error
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:
        # It listens at once: while a socket is only bound, another server could still take the port.
        return socket.create_server(address, family=family, backlog=2048, dualstack_ipv6=both)
    except OSError as error:
        hint = {
            errno.EADDRINUSE: f"Stop the other server, or choose another {option}; {option} 0 takes a free one.",
            errno.EACCES: f"Ports below 1024 are reserved: choose a larger {option}.",
            errno.EADDRNOTAVAIL: "Use an address of this machine: --host 127.0.0.1 or 0.0.0.0.",
        }.get(error.errno or 0, f"Choose another --host or {option}.")
        raise ZooError(f"Cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}.", hint) from error
