"""Several real sites on one machine that follow each other, and what a user sees of them."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil
import urllib3

from conftest import end
from dblike_delta.exchange import Exchange, ExchangeError
from dblike_delta.messages import LoginRequest
from dblike_srv.replication.link import SiteTransport
from rig.networks import Network
from rig.releases import environment
from rig.servers import PASSWORD

_T = TypeVar("_T")

PATIENCE = 90.0
"""Seconds after which what should happen is not going to."""
PROGRAM = (sys.executable, "-m", "dblike_srv")


def eventually(check: Callable[[], _T], what: object = "") -> _T:
    """What `check` returns once that is true; errors of sites that are away are not."""
    until, last = time.monotonic() + PATIENCE, None
    while time.monotonic() < until:
        with contextlib.suppress(ExchangeError, OSError, urllib3.exceptions.HTTPError):
            last = check()
            if last:
                return last
        time.sleep(0.03)  # between two looks
    raise AssertionError(f"{what() if callable(what) else what or check}: still {last!r}")


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def listens(port: int) -> bool:
    """Whether anyone takes connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class RealSite:
    """`dblike-server run` with a data directory and a port that stay."""

    def __init__(
        self,
        data: Path,
        port: int,
        config: Mapping[str, Any],
        host: str = "127.0.0.1",
        namespace: str = "",
    ) -> None:
        self.data, self.name, self.port = data, data.name, port
        self._prefix = ("ip", "netns", "exec", namespace) if namespace else ()
        self.url = f"http://{host}:{port}"
        self.log = data.parent / f"{data.name}.log"
        self.config = {
            "data": ".",
            "bind": f"{host}:{port}",
            "workers": 1,
            "site": {"name": data.name, "url": self.url},
            **config,
        }
        self.options: tuple[str, ...] = ()
        self.release: Path | None = None
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started, and not ended since."""
        return self.process is not None

    def configure(self, **values: Any) -> None:
        """Write the config with these values in it; it holds from the next start on."""
        self.config |= values
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = self.data / "config.json"
        place.write_text(json.dumps(self.config))
        place.chmod(0o600)

    def start(self, *, wait: bool = True) -> None:
        """Serve; `ready` waits for what this does not."""
        self.configure()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._prefix, *PROGRAM, "run", "--data", str(self.data), *self.options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env=environment(self.release),
            )
        if wait:
            self.ready()

    def ready(self) -> None:
        """Wait until it serves."""
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        served = line.startswith("DBLike serves at ")
        assert served, (line, self.process.poll(), self.log.read_text()[-4000:])

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        process, self.process = self.process, None
        if process is None:
            return 0
        end(process)
        return process.returncode

    def kill(self) -> None:
        """SIGKILL to all of it."""
        process, self.process = self.process, None
        if process is not None:
            with process:
                for each in self.family(process.pid):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.kill()
                process.wait()

    def family(self, pid: int | None = None) -> list[psutil.Process]:
        """Its processes, the first one first."""
        assert pid or self.process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(pid or (self.process.pid if self.process else 0))
            return [first, *first.children(recursive=True)]
        return []

    def following(self) -> list[psutil.Process]:
        """The processes that follow other sites."""
        return [p for p in self.family() if "dblike_srv.replication.supervisor" in _words(p)]

    def workers(self) -> list[psutil.Process]:
        """The processes that answer."""
        first, *others = self.family()
        return [p for p in others if p.ppid() == first.pid]

    def cpu(self) -> float:
        """Seconds of processor time that its processes took so far."""
        return sum(sum(p.cpu_times()[:2]) for p in self.family())

    def command(self, *words: str, text: str = "") -> str:
        """A command of the server's program."""
        done = subprocess.run(
            [*PROGRAM, *words, "--data", str(self.data)],
            input=text.encode(),
            capture_output=True,
            check=False,
            env=environment(self.release),
        )
        assert done.returncode == 0, (words, done.stderr.decode())
        return done.stdout.decode()

    def add_user(self, name: str = "ada") -> str:
        """A new account."""
        self.command("user", "add", name, "--password-stdin", text=PASSWORD)
        return name

    def at(self, token: str = "") -> User:
        """This site as somebody with this token sees it."""
        return User(self, token)

    def login(self, name: str = "ada", device: str = "laptop") -> User:
        """A new device."""
        user = User(self, "")
        user.login(name, device)
        return user


def _words(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return list(process.cmdline())
    return []


class User:
    """A site as a user sees it.  Raises what an exchange raises."""

    def __init__(self, site: RealSite, token: str) -> None:
        self.site = site
        self._http = SiteTransport(site.url)
        self._pool = urllib3.PoolManager(maxsize=8, retries=False, timeout=60)
        self.exchange = Exchange(self._http, token)

    @property
    def token(self) -> str:
        return self.exchange.token

    def login(self, name: str, device: str) -> bytes:
        """A token for a new device, whose id is returned."""
        reply = self.exchange.login(LoginRequest(user=name, password=PASSWORD, device=device))
        return bytes.fromhex(reply.device_id)

    def put(self, path: str, data: bytes, **headers: str) -> Mapping[str, str]:
        """Store a file; the headers of the answer."""
        return self._request("PUT", path, data, headers).headers

    def get(self, path: str) -> bytes:
        """A file's content."""
        return bytes(self._request("GET", path).data)

    def delete(self, path: str) -> None:
        """Delete a file."""
        self._request("DELETE", path)

    def patch(self, path: str, delta: bytes) -> None:
        """Change a file, as it is there now, by a librsync delta."""
        tag = self._request("HEAD", path).headers["ETag"]
        self._request("PATCH", path, delta, {"If-Match": tag})

    def _request(
        self, method: str, path: str, data: bytes = b"", more: Mapping[str, str] | None = None
    ) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", **(more or {})}
        url = f"{self.site.url}/v1/folders/home/files/{path}"
        reply = self._pool.request(method, url, body=data, headers=headers)
        if reply.status >= 300:
            raise OSError(f"{method} {path} at {self.site.name}: {reply.status} {reply.data!r}")
        return reply

    def cursor(self) -> str:
        """Where the folder stands: equal texts mean that the same versions are there."""
        return self.exchange.folders()[0].cursor

    def tree(self) -> dict[bytes, tuple[Any, ...]]:
        """What lives in the folder."""
        found, cursor, more = {}, "", True
        while more:
            page = self.exchange.changes("home", cursor)
            cursor, more = page.cursor, page.more
            for record in page.records:
                found[record.path] = (record.kind, record.hash, record.device, record.counter)
        return {path: seen for path, seen in found.items() if seen[0] != 4}


class Cluster:
    """Sites that have the same cluster key.

    Unless `follows` says otherwise each follows all others; it gives the numbers of the sites that
    each one follows, and those only.
    """

    def __init__(
        self,
        root: Path,
        count: int = 3,
        *,
        follows: Mapping[int, Iterable[int]] | None = None,
        replication: Mapping[str, Any] | None = None,
        network: Network | None = None,
        **config: Any,
    ) -> None:
        self.key = secrets.token_hex(32)
        ports = free_ports(count)
        hosts = network.hosts if network else ["127.0.0.1"] * count
        spaces = network.names if network else [""] * count
        urls = [f"http://{host}:{port}" for host, port in zip(hosts, ports, strict=True)]
        self.sites: list[RealSite] = []
        for i, port in enumerate(ports):
            others = [j for j in range(count) if j != i] if follows is None else follows.get(i, ())
            rules = {"follow": "all" if follows is None else "peers", **(replication or {})}
            if network:
                rules["insecure"] = True
            peers = [{"url": urls[j]} for j in others]
            settings = {"cluster_key": self.key, "peers": peers, "replication": rules, **config}
            site = RealSite(root / "abcdefgh"[i], port, settings, hosts[i], spaces[i])
            self.sites.append(site)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as started:
            started.push(self)
            self.start()
            started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for site in self.sites:
            if site.running:
                site.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        for site in self.sites:
            site.stop()

    def __iter__(self) -> Iterator[RealSite]:
        return iter(self.sites)

    def __getitem__(self, at: int) -> RealSite:
        return self.sites[at]

    def start(self) -> None:
        """Start those that do not run."""
        fresh = [site for site in self.sites if not site.running]
        for site in fresh:
            site.start(wait=False)
        for site in fresh:
            site.ready()

    def converge(self, token: str, sites: Iterable[RealSite] | None = None) -> str:
        """Wait until all that run hold the same; the cursor that they are at."""
        seen = [site.at(token) for site in (sites or self.sites) if site.running]

        def same() -> str:
            cursors = {user.cursor() for user in seen}
            return cursors.pop() if len(cursors) == 1 else ""

        def what() -> str:
            return f"the sites differ: {[site.log.read_text()[-1500:] for site in self.sites]}"

        try:
            cursor = eventually(same)
        except AssertionError:
            raise AssertionError(what()) from None
        trees = [user.tree() for user in seen]
        assert all(tree == trees[0] for tree in trees)
        return cursor
