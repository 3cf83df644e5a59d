"""The transport: connections, time-outs, cut replies, failing over."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

import pytest

from dblike_cli.connection import Timeouts
from dblike_cli.http import HttpTransport, Tries, address_of
from dblike_cli.sites import Sites
from dblike_delta.exchange import Refused, Request, Unreachable
from dblike_delta.seams import Clock, Random, SystemClock, SystemRandom
from dblike_delta.transport import refusal

PATIENCE = 20
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Server:
    """Reads whole requests, and answers each as `answer(number, head, body)` says.

    Questions after its health are no requests.  While it is stopped it takes connections, and what
    comes on them, but for their ends.  With `stays` it does not close where a reply has none.
    A `stranger` has the address of a site, and is none.
    """

    answer: Callable[[int, bytes, bytes], bytes | None] = lambda *_: OK
    health: bytes = OK
    stopped: bool = False
    stays: bool = False
    stranger: bool = False
    probed: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[bytes, bytes]] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self.ended = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError):
            while head := self._next(stream):
                length = 0
                for line in head.splitlines():
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                body = _chunks(stream) if b"chunked" in head else stream.read(length)
                if head.startswith((b"GET /healthz", b"GET /readyz")):
                    connection.sendall(self._signed(self.health))
                    self.probed.set()
                    continue
                self.requests.append((head, body))
                reply = self.answer(len(self.requests), head, body)
                if reply is None:
                    return
                connection.sendall(self._signed(reply))
                if self.stays:
                    self.ended.wait(PATIENCE)
                if b"\r\n\r\n" not in reply or b"Connection: close" in reply:
                    return

    def _signed(self, reply: bytes) -> bytes:
        """With what every reply of a site has in its head."""
        return reply if self.stranger else reply.replace(b"\r\n", b"\r\nX-DBLike-Time: 1\r\n", 1)

    def _next(self, stream: BinaryIO) -> bytes:
        if self.stopped:
            self.ended.wait(PATIENCE)
            return b""
        head = _head(stream)
        if head and self.stopped:
            self.ended.wait(PATIENCE)
            return b""
        return head

    def close(self) -> None:
        self.ended.set()
        self.listener.close()


def _head(stream: BinaryIO) -> bytes:
    """A request up to its empty line; nothing where the client is gone."""
    head = b""
    while (line := stream.readline()) != b"\r\n":
        if not line:
            return b""
        head += line
    return head


def _chunks(stream: BinaryIO) -> bytes:
    body = b""
    while size := int(stream.readline(), 16):
        body += stream.read(size)
        stream.readline()
    stream.readline()
    return body


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


FULL = b"HTTP/1.1 507 Full\r\nRetry-After: 300\r\nContent-Length: 0\r\n\r\n"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"


UNKNOWN = b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"
MINE = Request("GET", "/v1/time", {"Authorization": "Bearer t"})
SLOW = Timeouts(PATIENCE, PATIENCE, PATIENCE)


class Later(SystemClock):
    """A clock that can be put forward."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


_opened: list[HttpTransport] = []


@pytest.fixture(autouse=True)
def closed_in_the_end() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


def transport(*urls: str, waits: list[float] | None = None, **options: Any) -> HttpTransport:
    pause = (lambda _: None) if waits is None else waits.append
    defaults = {
        "timeouts": Timeouts(5.0, 5.0, 5.0),
        "tries": Tries(3, 0.5),
        "clock": SystemClock(),
        "random": SystemRandom(),
        "pause": pause,
    }
    _opened.append(HttpTransport(urls, **(defaults | options)))
    return _opened[-1]


def read(carrier: HttpTransport, request: Request | None = None) -> bytes:
    reply = carrier.request(request or Request("GET", "/v1/time"))
    return b"".join(reply.chunks())


def status(carrier: HttpTransport, request: Request) -> int:
    reply = carrier.request(request)
    reply.close()
    return reply.status


def dead_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_one_connection_serves_many_requests(server: Server) -> None:
    carrier = transport(server.url)
    assert [read(carrier) for _ in range(5)] == [b"ok"] * 5
    assert server.connections == 1


def test_buffers_go_out_in_order_whatever_their_sizes(server: Server) -> None:
    parts = [b"a", memoryview(b"b" * 300_000), b"", bytearray(b"c" * 10), b"d" * 2_000_000]
    whole = b"".join(parts)
    read(transport(server.url), Request("POST", "/x", {"A": "1"}, parts, len(whole)))
    head, body = server.requests[0]
    assert body == whole
    assert b"\r\nA: 1\r\n" in head


def test_a_body_of_unknown_length_is_chunked(server: Server) -> None:
    read(transport(server.url), Request("POST", "/x", {}, iter([b"one", b"", b"two"])))
    assert server.requests[0][1] == b"onetwo"


def chunked(parts: list[bytes]) -> bytes:
    framed = b"".join(b"%X\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


def test_a_chunked_reply_is_what_was_sent_and_the_connection_goes_on(server: Server) -> None:
    parts = [os.urandom(size) for size in (33, 1 << 20, 1, 9_000, 70_000, 3 << 20, 5)]
    server.answer = lambda number, *_: chunked(parts) if number < 3 else OK
    carrier = transport(server.url)
    assert [read(carrier), read(carrier)] == [b"".join(parts)] * 2
    assert read(carrier) == b"ok"
    assert server.connections == 1


@pytest.mark.parametrize("cut", [5, 8, 100_000])
def test_a_chunked_reply_that_is_cut_is_an_error(server: Server, cut: int) -> None:
    whole = chunked([b"a" * 33, b"b" * 200_000])
    server.answer = lambda *_: whole.replace(b"OK", b"OK\r\nConnection: close", 1)[:-cut]
    with pytest.raises(Unreachable):
        read(transport(server.url))


def test_a_large_chunk_that_is_there_comes_in_one_piece(server: Server) -> None:
    """What decodes it then needs no copy of it."""
    parts = [b"head" * 3_000, *(os.urandom(1 << 20) for _ in range(10))]
    server.answer = lambda *_: chunked(parts)
    pieces = list(transport(server.url).request(Request("GET", "/")).chunks())
    assert b"".join(pieces) == b"".join(parts)
    assert 1 << 20 in map(len, pieces)


def test_headers_of_replies_are_lower_case(server: Server) -> None:
    server.answer = lambda *_: b"HTTP/1.1 200 OK\r\nX-DBLike-Time: 7\r\nContent-Length: 0\r\n\r\n"
    reply = transport(server.url).request(Request("GET", "/"))
    reply.close()
    assert reply.headers["x-dblike-time"] == "7"


def test_a_header_can_hold_no_second_request(server: Server) -> None:
    with pytest.raises(Unreachable, match="line break"):
        transport(server.url).request(Request("GET", "/", {"A": "1\r\n\r\nGET /evil"}))
    assert server.requests == []


@pytest.mark.parametrize("cut", [0, 10, 17, 50, 58, 59])
def test_a_reply_that_is_cut_is_no_reply(server: Server, cut: int) -> None:
    whole = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
    server.answer = lambda *_: whole[:cut] + b"" if cut else None
    with pytest.raises(Unreachable):
        read(transport(server.url))


def test_a_kept_connection_that_died_is_replaced(server: Server) -> None:
    """The server may close a kept connection at any time: nobody notices."""
    server.answer = lambda number, *_: None if number == 2 else OK
    carrier = transport(server.url, tries=Tries(1))
    assert read(carrier) == b"ok"
    assert read(carrier) == b"ok"
    assert server.connections == 2


@pytest.mark.parametrize("digits", [4, 11, 400])
def test_nobody_waits_for_a_time_that_no_clock_has(server: Server, digits: int) -> None:
    """It ended `watch`, and left a site for good."""
    head = f"HTTP/1.1 507 Full\r\nRetry-After: {'9' * digits}\r\n".encode()
    body = b'{"title": "no space", "status": 507}'
    head += b"Content-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n" % len(body)
    full, clock = Server(lambda number, *_: head + body if number == 1 else OK), Later()
    carrier = transport(full.url, server.url, clock=clock)
    read(carrier)
    clock.ahead = 3700.0
    back = threading.Event()
    carrier.go_home(back.set)
    assert back.wait(PATIENCE)
    full.close()
    last = Server(lambda *_: head + body)
    refused = refusal(transport(last.url).request(Request("GET", "/")))
    assert isinstance(refused, Refused)
    assert refused.retry_after is not None
    assert refused.retry_after <= threading.TIMEOUT_MAX
    last.close()


def test_connections_that_wait_are_not_used_after_a_sleep(server: Server) -> None:
    """Where the other side, or a router between, forgot them, nobody says so."""
    server.stays = True  # and says nothing any more on that connection
    carrier = transport(server.url, timeouts=SLOW)
    assert read(carrier) == b"ok"
    server.stays = False
    carrier.refresh()
    assert read(carrier) == b"ok"
    assert server.connections == 2


def test_a_reply_not_read_to_its_end_costs_its_connection(server: Server) -> None:
    carrier = transport(server.url)
    carrier.request(Request("GET", "/")).close()
    assert read(carrier) == b"ok"
    assert server.connections == 2


def test_the_next_server_is_asked_when_one_is_gone(server: Server) -> None:
    carrier = transport(dead_url(), server.url)
    assert read(carrier) == b"ok"
    assert server.url.endswith(carrier.find().name)


def test_the_next_server_is_asked_when_one_is_busy(server: Server) -> None:
    busy = Server(lambda *_: b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
    carrier = transport(busy.url, server.url)
    assert [read(carrier) for _ in range(3)] == [b"ok"] * 3
    assert len(busy.requests) == 1, "and from then on the one that works"
    busy.close()


def test_a_full_site_is_left_until_it_may_have_room(server: Server) -> None:
    """Another one takes what it does not; it is not asked again each time, but later."""
    full = Server(lambda number, *_: FULL if number == 1 else OK)
    clock, back = Later(), threading.Event()
    carrier = transport(full.url, server.url, clock=clock)
    assert [read(carrier) for _ in range(3)] == [b"ok"] * 3
    clock.ahead = 140.0
    carrier.go_home(back.set)
    assert len(full.requests) == 1
    assert not back.is_set()
    clock.ahead = 301.0
    carrier.go_home(back.set)
    assert back.wait(PATIENCE)
    carrier.go_home(back.set)
    read(carrier)
    assert len(full.requests) == 2
    full.close()


@pytest.mark.parametrize("said", [b"HTTP/1.1 507 Quota\r\nContent-Length: 0\r\n\r\n", FULL])
def test_where_nobody_has_room_that_is_said(server: Server, said: bytes) -> None:
    """A quota, or two full disks."""
    server.answer = lambda *_: said
    other = Server(lambda *_: said)
    assert status(transport(server.url, other.url), MINE) == 507
    assert len(server.requests) + len(other.requests) == 1 + (said is FULL)
    other.close()


def test_it_goes_home_between_two_pieces_of_work(server: Server) -> None:
    """Never by itself: an upload that has begun at a site ends there."""
    first = Server(lambda number, *_: None if number <= 2 else OK)
    clock = Later()
    carrier = transport(first.url, server.url, clock=clock)
    moves: list[str] = []
    carrier.moved = lambda: moves.append(carrier.find().name)
    back = threading.Event()
    read(carrier)
    carrier.go_home(back.set)
    assert not back.is_set(), "it failed a moment ago"
    clock.ahead = 1000.0
    read(carrier)
    carrier.go_home(back.set)
    assert back.wait(PATIENCE)
    read(carrier)
    assert carrier.find().name in server.url
    carrier.go_home(back.set)
    read(carrier)
    assert [name for name in moves if name in first.url] == moves[1:]
    assert carrier.find().name in first.url
    first.close()


def test_no_more_connections_are_kept_than_are_used(server: Server) -> None:
    """Each slow answer is a reason to ask whether the site is there, on a connection of its own."""
    site = transport(server.url)._sites.all()[0]
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        site.probe("/healthz")
    assert len(os.listdir("/proc/self/fd")) - before < 20  # with the other ends


def test_what_several_find_at_once_is_one_failure() -> None:
    """The thread that listens and a request lose a site together; it is left alone no longer."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, now_ms=lambda: 0)
    longest = SimpleNamespace(uniform=lambda _, b: b, bytes=bytes)
    sites = Sites(cast("Clock", clock), cast("Random", longest), lambda _: None)
    sites.add([address_of("http://one.example")], cast("Any", None), learned=False)
    (site,) = sites.all()
    waits = []
    for _ in range(3):
        for _ in range(5):
            sites.fail(site)
        waits.append(site.away_until - clock.now)
        clock.now = site.away_until
    assert waits == [2, 4, 8]


def test_it_stays_where_home_is_not_ready(server: Server) -> None:
    first = Server(lambda *_: None)
    clock = Later()
    carrier = transport(first.url, server.url, clock=clock)
    read(carrier)
    first.health = BUSY
    clock.ahead = 1000.0
    carrier.go_home(lambda: None)
    for thread in threading.enumerate():
        if thread.name == "home":
            thread.join(PATIENCE)
    clock.ahead = 2000.0
    carrier.go_home(lambda: None)
    read(carrier)
    assert carrier.find().name in server.url
    first.close()


# --- sites that hang


def test_a_site_that_hangs_is_not_waited_for(server: Server) -> None:
    first = Server(stopped=True)
    carrier = transport(first.url, server.url, timeouts=SLOW)
    assert read(carrier) == b"ok"
    assert carrier.find().name in server.url
    first.close()


def test_a_site_that_begins_to_hang_is_left(server: Server) -> None:
    first = Server()
    carrier = transport(first.url, server.url, timeouts=SLOW)
    read(carrier)
    first.stopped = True
    assert [read(carrier) for _ in range(3)] == [b"ok"] * 3
    assert len(first.requests) == 1
    assert len(server.requests) == 3
    first.close()


def test_a_site_that_stops_reading_is_left(server: Server) -> None:
    first = Server()
    carrier = transport(first.url, server.url, timeouts=SLOW)
    read(carrier)
    first.stopped = True
    body = bytes(64 << 20)
    read(carrier, Request("POST", "/x", {}, [body], len(body)))
    assert server.requests[0][1] == body
    first.close()


def test_a_site_that_hangs_in_a_reply_has_cut_it(server: Server) -> None:
    first = Server(lambda *_: OK.replace(b"2", b"9"), stays=True)
    carrier = transport(first.url, server.url, timeouts=SLOW)
    reply = carrier.request(Request("GET", "/large"))
    first.stopped = True
    with pytest.raises(Unreachable, match="cut"):
        list(reply.chunks())
    first.close()


def test_a_site_that_takes_its_time_is_waited_for(server: Server) -> None:
    """A long commit is no reason to leave: it answers when it is asked whether it is there."""
    probed = threading.Event()
    first = Server(probed=probed)

    def slow(*_: Any) -> bytes:
        probed.clear()
        assert probed.wait(PATIENCE)
        probed.clear()
        assert probed.wait(PATIENCE)
        return OK

    first.answer = slow
    carrier = transport(first.url, server.url, timeouts=SLOW)
    assert read(carrier) == b"ok"
    assert server.requests == []
    assert carrier.find().name in first.url
    first.close()


def test_where_none_answers_the_one_that_serves_is_waited_for(server: Server) -> None:
    """On a machine or a line that is at its end all are slow: to leave would help nobody."""
    other = Server(stopped=True)
    release = threading.Timer(3.0, lambda: None)

    def slow(*_: Any) -> bytes:
        server.stopped = True
        release.start()
        release.join()
        return OK

    carrier = transport(server.url, other.url, timeouts=SLOW)
    read(carrier)
    server.answer = slow
    assert read(carrier) == b"ok"
    assert carrier.find().name in server.url
    other.close()


# --- a login that a site does not know


def test_a_site_that_has_not_heard_of_the_login_yet(server: Server) -> None:
    first = Server(lambda *_: UNKNOWN)
    carrier = transport(first.url, server.url)
    carrier.issuer = server.url
    assert read(carrier, MINE) == b"ok"
    first.close()


def test_the_issuer_s_no_counts(server: Server) -> None:
    first = Server(lambda *_: UNKNOWN)
    carrier = transport(first.url, server.url)
    carrier.issuer = first.url
    assert status(carrier, MINE) == 401
    assert server.requests == []
    first.close()


def test_a_no_counts_when_all_say_it(server: Server) -> None:
    first = Server(lambda *_: UNKNOWN)
    server.answer = lambda *_: UNKNOWN
    carrier = transport(first.url, server.url)
    assert status(carrier, MINE) == 401
    first.close()


def test_a_no_is_for_now_while_the_issuer_can_t_be_asked(server: Server) -> None:
    server.answer = lambda *_: UNKNOWN
    carrier = transport(dead_url(), server.url, tries=Tries(1))
    with pytest.raises(Unreachable, match="does not know this login"):
        carrier.request(MINE)
    # A password is another matter.
    assert status(carrier, Request("POST", "/v1/login")) == 401


# --- sites that a site named


def test_learned_sites_come_last(server: Server) -> None:
    learned = Server()
    carrier = transport(server.url)
    carrier.learn([learned.url, server.url + "/"])
    read(carrier)
    assert carrier.find().name in server.url
    assert [address.name for address in carrier.others()] == [learned.url[7:]]
    server.stopped = True
    read(carrier)
    assert carrier.find().name in learned.url
    learned.close()


def test_when_all_are_busy_their_word_is_handed_on(server: Server) -> None:
    server.answer = lambda *_: b"HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
    waits: list[float] = []
    reply = transport(server.url, waits=waits).request(Request("GET", "/"))
    reply.close()
    assert reply.status == 503
    assert len(server.requests) == 3
    assert len(waits) == 2
    assert all(7 <= wait <= 7.25 for wait in waits), "as long as the server asked"


def test_pauses_grow_and_differ() -> None:
    waits: list[float] = []
    with pytest.raises(Unreachable, match="Connection refused"):
        read(transport(dead_url(), waits=waits, tries=Tries(4, 1.0)))
    assert [0.5 <= waits[0] <= 1, 1 <= waits[1] <= 2, 2 <= waits[2] <= 4] == [True] * 3


def test_every_server_is_named_when_none_answers() -> None:
    first, second = dead_url(), dead_url()
    with pytest.raises(Unreachable) as failure:
        read(transport(first, second))
    assert first[7:] in str(failure.value)
    assert second[7:] in str(failure.value)


def test_a_body_that_can_not_be_repeated_is_sent_once(server: Server) -> None:
    server.answer = lambda *_: None
    with pytest.raises(Unreachable):
        read(transport(server.url), Request("POST", "/", {}, iter([b"once"]), 4))
    assert len(server.requests) == 1


def test_redirects_are_not_followed(server: Server) -> None:
    """The token goes to the servers that the user named, and nowhere else."""
    other = Server()
    moved = b"HTTP/1.1 302 Found\r\nLocation: %b/v1/time\r\nContent-Length: 0\r\n\r\n"
    server.answer = lambda *_: moved % other.url.encode()
    with pytest.raises(Unreachable, match="redirects"):
        read(transport(server.url, tries=Tries(1)))
    assert other.requests == []
    other.close()


@pytest.mark.parametrize("said", [b"404 No", b"200 OK", b"403 No", b"400 Bad", b"401 Log in"])
def test_a_stranger_at_a_url_is_passed_by(server: Server, said: bytes) -> None:
    """A portal of the network, or whoever has the address now."""
    page = b"HTTP/1.1 %b\r\nContent-Length: 6\r\n\r\n<html>" % said
    first = Server(lambda *_: page, health=page, stranger=True)
    carrier = transport(first.url, server.url)
    carrier.issuer = first.url
    assert [read(carrier, MINE) for _ in range(2)] == [b"ok"] * 2
    assert first.requests == []
    first.close()


def test_where_all_are_strangers_each_is_named(server: Server) -> None:
    server.stranger = True
    other = Server(stranger=True)
    with pytest.raises(Unreachable, match=r"(status 200 that is not a DBLike server's.*){2}"):
        read(transport(server.url, other.url))
    other.close()


def test_a_site_that_becomes_a_stranger_is_left(server: Server) -> None:
    first = Server()
    carrier = transport(first.url, server.url)
    assert read(carrier) == b"ok"
    first.stranger = True
    assert read(carrier) == b"ok"
    assert len(server.requests) == 1
    first.close()


def test_an_early_no_is_heard_while_sending(server: Server) -> None:
    """A server that refuses a large body closes before it has read all of it: its reason counts."""

    def refuse(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(
            b"HTTP/1.1 413 Too Large\r\nX-DBLike-Time: 1\r\nContent-Length: 4\r\n\r\nmuch"
        )
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):
            pass
        connection.close()

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: refuse(listener.accept()[0]), daemon=True).start()
    carrier = transport(f"http://127.0.0.1:{listener.getsockname()[1]}")
    reply = carrier.request(Request("POST", "/", {}, [bytes(5 << 20)], 5 << 20))
    assert (reply.status, b"".join(reply.chunks())) == (413, b"much")
    listener.close()


def test_a_silent_server_is_given_up() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    carrier = transport(
        f"http://127.0.0.1:{listener.getsockname()[1]}",
        timeouts=Timeouts(0.1, 0.1, 0.1),
        tries=Tries(1),
    )
    with pytest.raises(Unreachable, match="timed out"):
        read(carrier)
    listener.close()


def test_a_url_may_have_a_path(server: Server) -> None:
    read(transport(f"{server.url}/sync/"))
    assert server.requests[0][0].startswith(b"GET /sync/v1/time HTTP/1.1\r\n")
