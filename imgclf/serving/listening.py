"""The socket of a server; without the models' libraries, so that a port in use is told at once."""

import errno
import socket

from imgclf.errors import UserError


def bound(host: str, port: int) -> socket.socket:
    """A socket that has the port, before minutes go into the models.

    Raises:
      UserError: for a port or a host that there isn't, or one that can't be had.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"There is no port {port}: give one from 1 to 65535, or 0 for any that is free.")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise UserError(f"There is no host {host!r} ({error.strerror}): give 127.0.0.1, or an address of this machine.") from error
    listening = socket.socket(family, kind)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(2048)  # so that a second server is told now, and clients wait until this one is up
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"The port {port} is in use: stop what uses it, or give another --port (0 = any that is free).") from error
        raise UserError(f"{host}:{port} can't be listened on ({error.strerror}): give another --host or --port.") from error
    return listening
