"""Sessions: log in and out, the password, the user's devices."""

from __future__ import annotations

from flask import Blueprint, Response

from dblike_delta.messages import (
    DeviceList,
    DeviceRequest,
    LoginReply,
    LoginRequest,
    PasswordChange,
    SiteList,
    SiteView,
)
from dblike_srv import accounts
from dblike_srv.api.inbound import address, caller, early_message, extra, identity, message, site
from dblike_srv.api.operation import operation
from dblike_srv.api.outbound import nothing, reply
from dblike_srv.devices import list_devices, revoke_device
from dblike_srv.replication.sites import known_sites

blueprint = Blueprint("sessions", __name__, url_prefix="/v1")


@blueprint.post("/login")
@operation(LoginRequest, gives=LoginReply, public=True)
def login() -> Response:
    """Credentials for a bearer token of this device."""
    wanted = early_message(LoginRequest)
    return reply(accounts.login(site(), extra("gate"), wanted, address()))


@blueprint.post("/logout")
@operation(status=204)
def logout() -> Response:
    """End this device's token."""
    accounts.logout(site(), identity())
    return nothing()


@blueprint.post("/password")
@operation(PasswordChange, status=204)
def password() -> Response:
    """Set a new password; the other devices' tokens end."""
    me = identity()
    accounts.change_password(site(), me, message(PasswordChange, largest=16 << 10))
    return nothing()


@blueprint.get("/devices")
@operation(gives=DeviceList)
def devices() -> Response:
    """The user's devices, oldest first."""
    me = identity()
    return reply(DeviceList(list_devices(site(), me.user, current=me.device)))


@blueprint.post("/devices")
@operation(DeviceRequest, gives=LoginReply, status=201)
def add_device() -> Response:
    """A new device in the name of this one, whose state was copied or set back."""
    me = identity()
    wanted = message(DeviceRequest, largest=16 << 10)
    return reply(accounts.add_device(site(), me, wanted.device), 201)


@blueprint.delete("/devices/<device>")
@operation(status=204)
def revoke(device: str) -> Response:
    """End a device's token for good."""
    revoke_device(site(), caller().identity.user, device)
    return nothing()


@blueprint.get("/sites")
@operation(gives=SiteList)
def sites() -> Response:
    """The sites that hold the same data."""
    identity()
    here = site()
    return reply(
        SiteList(
            [
                SiteView(state.id.hex(), state.name, state.url, current=state.id == here.id)
                for state in known_sites(here)
            ]
        )
    )
