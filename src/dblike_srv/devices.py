"""A user's devices: which there are, and ending them."""

from __future__ import annotations

from sqlalchemy import Connection, select

from dblike_delta.messages import DeviceView
from dblike_srv.errors import NotFound
from dblike_srv.models import devices
from dblike_srv.registers import change, end_added, end_all
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
    if owner_of(site, device_id) != user:
        raise NotFound("no such device", field="id")
    mine, now = devices.c.id == _device_bytes(device_id), site.clock.now_ms()

    def work(connection: Connection) -> None:
        end_all(connection, mine, now, revoked=now)
        end_added(connection, user)

    change(site, work)


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
