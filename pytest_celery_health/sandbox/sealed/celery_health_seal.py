"""Refuse and name every connection that the sandbox does not allow, in this process.

It runs before any other code in every Python process of the sandbox, so it is small and imports little.
`pytest_celery_health.sandbox.seal` is the other half: it says what is allowed and reads the log.
"""

from __future__ import annotations

import errno
import os
import sys

TYPE_CHECKING = False  # typing itself would bring a dozen modules
if TYPE_CHECKING:
    from typing import Any, NoReturn

#: A retry loop must not fill the disk.
_MOST_LINES = 200

_AF_UNIX, _AF_INET, _AF_NETLINK = 1, 2, 16
_ANY_PORT = -1

_allowed: list[tuple[str, int]] = []
_looked_up: dict[int, str] = {}
_resolved: dict[str, set[str]] = {}
_log_path = ""
_role = ""
_lines = 0

_OURS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def install() -> None:
    """Seal this process as its environment says; nothing when it says nothing."""
    global _log_path, _role
    said = os.environ.get("CELERY_HEALTH_SEAL")
    if said is None:
        return
    _log_path = os.environ.get("CELERY_HEALTH_SEAL_LOG", "")
    _role = os.environ.get("CELERY_HEALTH_SEAL_ROLE", "")
    for endpoint in said.split():
        host, _, port = endpoint.rpartition(":")
        _allowed.append((host.strip("[]").lower(), _ANY_PORT if port == "*" else int(port)))
    sys.addaudithook(_hook)
    if "CELERY_HEALTH_SEAL_KERNEL" not in os.environ:
        # Rules are inherited, and a process can stack only 16 of them: a child must not add its own.
        os.environ["CELERY_HEALTH_SEAL_KERNEL"] = restrict(port for _, port in _allowed)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    handler = _HANDLERS.get(event)
    if handler is not None:
        handler(*args)


def _on_connect(sock: Any, address: Any) -> None:
    family = int(sock.family)
    if family in (_AF_UNIX, _AF_NETLINK) or address is None:
        return
    if not isinstance(address, tuple) or len(address) < 2:
        if family not in _internet():
            _refuse(str(address))
        return  # the socket itself will complain
    host, port = _text(address[0]), int(address[1])
    host = host.partition("%")[0].removeprefix("::ffff:") or "0.0.0.0"  # noqa: S104
    if not _permitted(host, port, family):
        name = _looked_up.get(port) or _looked_up.get(_ANY_PORT)
        if name and host in _addresses(name):
            host = name
        _refuse(_spell(host, port))


def _on_lookup(host: Any, port: Any = None, *_: Any) -> None:
    name = _text(host or "").rstrip(".").lower()
    number = int(port) if str(port).isdigit() else _ANY_PORT
    if name and not _is_address(name):
        if not _is_local(name) and all(name != allowed for allowed, _ in _allowed):
            _refuse(_spell(name, number) if number > 0 else name, lookup=True)
        if number != _ANY_PORT or not _is_local(name):
            _looked_up[number] = name


def _on_reverse_lookup(address: Any) -> None:
    name = _text(address)
    if name and _is_address(name):
        if not name.startswith("127.") and name not in ("::1", "::", "0.0.0.0"):  # noqa: S104
            _refuse(name, lookup=True)
    else:
        _on_lookup(name)


def _on_socket(*_: Any) -> None:
    """Wrap what takes a host's name: CPython looks it up before it raises the audit event."""
    module = sys.modules.get("socket")
    if module is None or _HANDLERS.pop("socket.__new__", None) is None:
        return
    for name in ("connect", "connect_ex", "sendto", "sendmsg"):
        setattr(module.socket, name, _checked(getattr(module.socket, name)))


def _checked(method: Any) -> Any:
    def checked(sock: Any, *args: Any, **more: Any) -> Any:
        name = method.__name__
        address = args[-1] if name != "sendmsg" else args[3] if len(args) > 3 else None
        if isinstance(address, tuple) and len(address) > 1 and isinstance(address[1], int):
            _on_connect(sock, address)
        return method(sock, *args, **more)

    checked.__name__ = method.__name__
    return checked


_HANDLERS: dict[str, Any] = {
    "socket.__new__": _on_socket,
    "socket.connect": _on_connect,
    "socket.sendto": _on_connect,
    "socket.sendmsg": _on_connect,
    "socket.getaddrinfo": _on_lookup,
    "socket.gethostbyname": _on_lookup,  # of gethostbyname_ex too
    "socket.gethostbyaddr": _on_reverse_lookup,
}


def _permitted(host: str, port: int, family: int) -> bool:
    if not _is_address(host) and _is_local(host):
        ours = [address for address in _addresses(host) if (":" in address) == (family != _AF_INET)]
        return any(_permitted(address, port, family) for address in ours)
    for allowed, allowed_port in _allowed:
        if allowed_port not in (port, _ANY_PORT):
            continue
        if host.lower() == allowed or (not _is_address(allowed) and _is_of(host, allowed)):
            return True
    return False


def _is_of(address: str, name: str) -> bool:
    if address in _addresses(name):
        return True
    _resolved.pop(name, None)  # a name may have got other addresses since
    return address in _addresses(name)


def _addresses(name: str) -> set[str]:
    if name not in _resolved:
        import _socket

        try:
            _resolved[name] = {str(found[4][0]) for found in _socket.getaddrinfo(name, None)}
        except OSError:
            return set()
    return _resolved[name]


def _is_address(name: str) -> bool:
    import _socket

    for family in _internet():
        try:
            _socket.inet_pton(family, name.partition("%")[0])
        except (OSError, ValueError):
            continue
        return True
    return False


def _internet() -> tuple[int, int]:
    import _socket

    return _AF_INET, int(_socket.AF_INET6)


def _is_local(name: str) -> bool:
    import _socket

    local = (
        "localhost",
        "localhost.localdomain",
        "ip6-localhost",
        "ip6-loopback",
        _socket.gethostname().lower(),
    )
    return name in local or name.endswith(".localhost")


def _text(host: Any) -> str:
    return host.decode("ascii", "replace") if isinstance(host, (bytes, bytearray)) else str(host)


def _spell(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _refuse(address: str, *, lookup: bool = False) -> NoReturn:
    endpoint = address if not lookup or ":" in address else f"{address}:PORT"
    message = (
        f"the sandbox refused a connection to {address}; "
        f'allow it with allow = ["{endpoint}"] in [tool.celery-health.sandbox]'
    )
    _log(address)
    if lookup:
        import _socket

        raise _socket.gaierror(_socket.EAI_NONAME, message)
    raise ConnectionRefusedError(errno.ECONNREFUSED, message)


def _log(address: str) -> None:
    global _lines
    _lines += 1
    if not _log_path or _lines > _MOST_LINES:
        return
    import json

    line = {
        "pid": os.getpid(),
        "role": _role,
        "address": address,
        "where": _where(),
    }
    try:
        fd = os.open(_log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError:
        return
    try:
        os.write(fd, json.dumps(line).encode() + b"\n")
    finally:
        os.close(fd)


def _where() -> str:
    """file:line of the innermost frame that is neither ours nor of an installed package."""
    library = os.path.dirname(os.__file__)
    outermost = ""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_OURS, "<frozen")):
            outermost = f"{file}:{frame.f_lineno}"
            if not file.startswith(library) and "-packages" not in file:
                return outermost
        frame = frame.f_back  # type: ignore[assignment]
    return outermost


def restrict(ports: Any) -> str:
    """Have the kernel allow TCP connections to these ports only, of this process and all that it starts.

    Returns "" when that is in force, else why not. It covers what is not Python: C libraries, subprocesses.
    The kernel knows ports, not hosts.
    """
    wanted = sorted(set(ports))
    if _ANY_PORT in wanted:
        return "allow holds a port *"
    abi = kernel_abi()
    if abi < 4:
        return "the kernel has no Landlock rules for TCP (Linux 6.7)"
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    create, add, enforce = 444, 445, 446
    connect_tcp, net_port = 1 << 1, 2
    handled = (ctypes.c_uint64 * 2)(0, connect_tcp)  # nothing of the file system
    ruleset = libc.syscall(create, ctypes.byref(handled), ctypes.sizeof(handled), 0)
    if ruleset < 0:
        return f"the kernel refused the rules: {os.strerror(ctypes.get_errno())}"
    try:
        for port in wanted:
            rule = (ctypes.c_uint64 * 2)(connect_tcp, port)
            if libc.syscall(add, ruleset, net_port, ctypes.byref(rule), 0) != 0:
                return f"the kernel refused the rules: {os.strerror(ctypes.get_errno())}"
        if libc.syscall(enforce, ruleset, 0) == 0:
            return ""
        set_no_new_privs = 38  # without CAP_SYS_ADMIN the kernel wants it first
        if libc.prctl(set_no_new_privs, 1, 0, 0, 0) == 0 and libc.syscall(enforce, ruleset, 0) == 0:
            return ""
        return f"the kernel refused the rules: {os.strerror(ctypes.get_errno())}"
    finally:
        os.close(ruleset)


def kernel_abi() -> int:
    """The version of Landlock in this kernel, 0 without. TCP rules came with 4."""
    if not sys.platform.startswith("linux"):
        return 0
    try:
        import ctypes

        ask_version = 1
        return max(0, int(ctypes.CDLL(None, use_errno=True).syscall(444, None, 0, ask_version)))
    except (ImportError, OSError, AttributeError):
        return 0
