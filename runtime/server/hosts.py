"""Names that servers are called by.

A web page can make its own name resolve to 127.0.0.1 once it is shown, and its scripts may then ask and read what
listens there, as if it were the page's own server. Their requests still hold the page's name as ``Host``.
"""

from ipaddress import ip_address


def is_loopback(name: str) -> bool:
    """Whether ``name`` is this machine's name for itself: localhost, 127.* or ::1."""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def may_name(header: str, host: str) -> bool:
    """Whether a request with the ``Host`` header is meant for a server that listens on the loopback ``host``."""
    name = _without_port(header)
    return is_loopback(name) or (name != "" and name.lower() == host.lower())


def _without_port(header: str) -> str:
    """The name; empty for what is none."""
    if header.startswith("["):
        name, closed, port = header[1:].partition("]")
        return name if closed and (not port or port.startswith(":")) else ""
    return header.partition(":")[0]
