"""syncthing: three devices, A and B each know the server only; discovery and relays off."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.corpora import Change
from benchmarks.measure import BenchmarkError, Meter, wait_until
from benchmarks.peers.base import Peer
from benchmarks.wire import CLIENTS, Place, free_port

_PLACES: tuple[Place, ...] = ("s", "a", "b")
_CONFIG = """\
<configuration version="36">
  <folder id="folder" path="{path}" type="sendreceive" rescanIntervalS="86400"
      fsWatcherEnabled="{watch}" fsWatcherDelayS="1" autoNormalize="false">
    <filesystemType>basic</filesystemType><minDiskFree unit="%">0</minDiskFree>
    {members}
  </folder>
  {devices}
  <gui enabled="true" tls="false"><address>{socket}</address><apikey>key</apikey></gui>
  <options>
    <listenAddress>{listen}</listenAddress>
    <globalAnnounceEnabled>false</globalAnnounceEnabled>
    <localAnnounceEnabled>false</localAnnounceEnabled>
    <relaysEnabled>false</relaysEnabled><natEnabled>false</natEnabled>
    <reconnectionIntervalS>1</reconnectionIntervalS><startBrowser>false</startBrowser>
    <urAccepted>-1</urAccepted><autoUpgradeIntervalH>0</autoUpgradeIntervalH>
    <crashReportingEnabled>false</crashReportingEnabled><setLowPriority>false</setLowPriority>
    <stunKeepaliveStartS>0</stunKeepaliveStartS><minHomeDiskFree unit="%">0</minHomeDiskFree>
  </options>
</configuration>
"""


class Syncthing(Peer):
    """One-shot work is "scan A now", then waiting for B; watching uses its shortest delay."""

    name = "syncthing"
    package = "syncthing"
    program = "syncthing"

    def open(self) -> None:
        self._port = free_port()
        self._ids = {place: self._make_identity(place) for place in _PLACES}
        self._start_all(watch=False)

    def environment(self, place: Place) -> Mapping[str, str]:
        return {**super().environment(place), "STNODEFAULTFOLDER": "1", "STNOUPGRADE": "1"}

    def transfer(self, meter: Meter, change: Change) -> None:
        del meter
        self._call("a", "POST", "/rest/db/scan?folder=folder")
        self.arrived(change)

    def check(self, meter: Meter) -> None:
        del meter
        self._call("a", "POST", "/rest/db/scan?folder=folder")

    def watch(self) -> None:
        """The same devices again, with their watchers on."""
        self.close()
        self._start_all(watch=True)

    def _home(self, place: Place) -> Path:
        return self.bench.work / f"syncthing-{place}"

    def _make_identity(self, place: Place) -> str:
        home = f"--home={self._home(place)}"
        self.setup(
            place, ["syncthing", "generate", home, "--no-default-folder", "--skip-port-probing"]
        )
        return self.setup(place, ["syncthing", home, "--device-id"]).strip()

    def _start_all(self, *, watch: bool) -> None:
        for place in _PLACES:
            (self._home(place) / "config.xml").write_text(self._config(place, watch=watch))
            self._socket(place).unlink(missing_ok=True)
            self.start(place, ["syncthing", f"--home={self._home(place)}", "--no-browser"])
        wait_until(self._ready, "syncthing: connection", 60, 0.05)

    def _config(self, place: Place, *, watch: bool) -> str:
        known = _PLACES if place == "s" else ("s", place)
        listen = (
            f"tcp://{self.bench.wire.listen()}:{self._port}"
            if place == "s"
            else "tcp://127.0.0.1:0"
        )
        path = {"a": self.bench.a, "b": self.bench.b, "s": self.bench.s}[place]
        return _CONFIG.format(
            path=path,
            watch=str(watch).lower(),
            members="".join(f'<device id="{self._ids[each]}"/>' for each in known),
            devices="".join(self._device(place, each) for each in known),
            socket=self._socket(place),
            listen=listen,
        )

    def _device(self, place: Place, other: Place) -> str:
        address = "tcp://127.0.0.1:1"
        if place != "s" and other == "s":
            host, port = self.bench.wire.server(place, self._port)
            address = f"tcp://{host}:{port}"
        return (
            f'<device id="{self._ids[other]}" name="{other}" compression="metadata">'
            f"<address>{address}</address></device>"
        )

    def _socket(self, place: Place) -> Path:
        return self.bench.work / f"{place}.sock"

    def _ready(self) -> bool:
        self.alive()
        try:
            known = self._call("s", "GET", "/rest/system/connections")["connections"]
            idle = [self._call(p, "GET", "/rest/db/status?folder=folder")["state"] for p in _PLACES]
        except (OSError, http.client.HTTPException, KeyError, ValueError):
            return False
        return all(known[self._ids[client]]["connected"] for client in CLIENTS) and set(idle) == {
            "idle"
        }

    def _call(self, place: Place, method: str, path: str) -> Any:
        connection = _Local(self._socket(place))
        try:
            connection.request(method, path, headers={"X-API-Key": "key"})
            reply = connection.getresponse()
            body = reply.read()
        finally:
            connection.close()
        if reply.status != http.client.OK:
            raise BenchmarkError(f"syncthing {path}: {reply.status} {body[:200]!r}")
        return json.loads(body) if body else {}


class _Local(http.client.HTTPConnection):
    """HTTP over a Unix socket: reachable whatever network the program is in, and never counted."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=600)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
