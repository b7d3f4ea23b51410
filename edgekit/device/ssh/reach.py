"""The connection to a target's board. Who asks for it while another has it open shares that one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgekit.device.board import BoardAddress
from edgekit.device.ssh.alias import is_configured
from edgekit.device.ssh.connection import SshConnection
from edgekit.device.ssh.host import SshHost, ssh_host
from edgekit.errors import DeviceError

if TYPE_CHECKING:
    from edgekit.target import Target

__all__ = ["find_host", "reached"]


@dataclass(slots=True)
class _Shared:
    connection: SshConnection
    opened: ExitStack
    users: int = field(default=1)


_shared: dict[str, _Shared] = {}
_lock = threading.Lock()


@contextmanager
def reached(target: Target, board: BoardAddress | None) -> Iterator[SshConnection]:
    """The connection to the board that `board` names; None is the emulated one, or the ssh alias that has
    the target's name. The last one to leave closes it.

    Raises:
        DeviceError: no board is named.
    """
    key = f"{target.name} {board}"
    with _lock:
        known = _shared.get(key)
        if known is None:
            known = _shared[key] = _open(target, board)
        else:
            known.users += 1
    try:
        yield known.connection
    finally:
        with _lock:
            known.users -= 1
            last = known.users == 0
            if last:
                del _shared[key]
        if last:
            known.opened.close()


def find_host(target: Target, board: BoardAddress | None) -> SshHost:
    """The host of a board that is not emulated.

    Raises:
        DeviceError: nobody named one.
    """
    if board is not None:
        return ssh_host(board)
    if is_configured(target.name):
        return SshHost(target.name)
    raise DeviceError(
        f"nobody says which board is meant by {target.name}",
        hint=f"name it: --board ssh:user@host; or EDGEKIT_BOARD, [boards] in edgekit.toml, or a "
        f'"Host {target.name}" in ~/.ssh/config',
    )


def _open(target: Target, board: BoardAddress | None) -> _Shared:
    opened = ExitStack()
    try:
        if target.emulator is not None:
            from edgekit.device.emulated_ssh import emulated_board

            host = opened.enter_context(emulated_board(target))
        else:
            host = find_host(target, board)
        connection = opened.enter_context(SshConnection(host))
    except BaseException:
        opened.close()
        raise
    return _Shared(connection, opened)
