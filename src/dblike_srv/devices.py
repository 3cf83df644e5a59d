"""A user's devices: which there are, and ending them."""

from __future__ import annotations

from sqlalchemy import select

from dblike_delta.messages import DeviceView
from dblike_srv.db import asked
from dblike_srv.errors import NotFound
from dblike_srv.models import devices
from dblike_srv.registers import end_tokens
from dblike_srv.site import Site


def list_devices(site: Site, user: int, *, current: bytes = b"") -> list[DeviceView]:
    """The user's devices, oldest first."""
    query = select(devices).where(devices.c.user == user).order_by(devices.c.created, devices.c.id)
    rows = site.database.read(lambda connection: connection.execute(query).all())
    return [
        DeviceView(
            id=bytes(row.id).hex(),
            name=row.name,
            created=row.created,
            last_seen=row.last_seen,
            current=bytes(row.id) == current,
            revoked=bool(row.revoked),
        )
        for row in rows
    ]


def revoke_device(site: Site, user: int, device_id: str) -> None:
    """End a device's token for good, and those of devices that were added in its name: who stole
    the one has the others.  Raises NotFound where it isn't this user's."""
    query = select(devices.c.id, devices.c.parent).where(devices.c.user == user)
    parents = {bytes(row.id): row.parent for row in site.database.read(asked(query))}
    ended = {_device_bytes(device_id)}
    if not ended <= parents.keys():
        raise NotFound("no such device", field="id")
    while more := {one for one, above in parents.items() if above in ended} - ended:
        ended |= more
    end_tokens(site, devices.c.id.in_(ended), revoked=site.clock.now_ms())


def owner_of(site: Site, device_id: str) -> int:
    """The user whose device it is; raises NotFound."""
    query = select(devices.c.user).where(devices.c.id == _device_bytes(device_id))
    found = site.database.read(lambda connection: connection.scalar(query))
    if found is None:
        raise NotFound("no such device", field="id")
    return int(found)


def _device_bytes(device_id: str) -> bytes:
    try:
        return bytes.fromhex(device_id)
    except ValueError:
        return b""
