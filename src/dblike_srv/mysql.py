"""MySQL, MariaDB and Galera: how a connection is made, and what their errors mean.

A URL may name several nodes of one cluster: mysql+pymysql://user:password@a:3306,b:3306,c/dblike.
They are tried in that order, so that all of a site's hosts write to one node as long as it works:
writers on several nodes of a Galera cluster fail each other's transactions.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

PORT: Final = 3306
CONNECT: Final = 3
"""Seconds in which a node must accept a connection."""
ANSWER: Final = 30
"""Seconds in which a server must answer a statement."""
ANSWER_OF_ONE: Final = 12
"""The same where there are other nodes to go to."""
LOCK_WAIT: Final = 10
"""Seconds that a transaction waits for another one's lock; less than both."""
SHUNNED: Final = 10.0
"""Seconds in which a node that could not be used is the last one that is tried."""

TAKEN: Final = 1062
"""A row of that key is there already."""
NOT_READY: Final = 1047
"""A Galera node that is not part of the cluster's majority."""
READ_ONLY: Final = 1290
"""A server that was made to only read, as replicas are."""
PASSING: Final = frozenset((
    1020, 1205, 1213,                    # somebody else's transaction was in the way
    1180, 1317,                          # a COMMIT that failed, a statement that Galera stopped
    1040, 1203, 1226,                    # too many connections
    NOT_READY, 1053, 1927, 4031,         # the node leaves, or has ended this connection
    READ_ONLY, 1792, 1836,               # it only reads since a failover
    1158, 1159, 1160, 1161,              # its network
    2002, 2003, 2006, 2013, 2014, 2055,  # ours
))  # fmt: skip
"""Errors after which the whole transaction is run again."""
USELESS: Final = frozenset((NOT_READY, READ_ONLY, 1053, 1792, 1836, 1927, 2014, 4031))
"""Errors after which a connection is of no use, though it may go on answering."""

log = logging.getLogger(__name__)


class Node(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Address(NamedTuple):
    """A database: its nodes, and the URL by way of the first one."""

    url: URL
    nodes: tuple[Node, ...]


_NODES: Final = re.compile(
    r"(?P<head>[\w+]+://(?:[^/]*@)?)(?P<nodes>[^/?]*)(?P<tail>.*)", re.DOTALL
)
_NODE: Final = re.compile(r"(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>\d+))?")


def parse(text: str) -> Address:
    """The address that a URL means.  Raises ArgumentError, which shows no password."""
    found = _NODES.fullmatch(text)
    if found is None:
        raise ArgumentError("this is no URL of a database")
    nodes = tuple(map(_node, found["nodes"].split(",")))
    url = make_url(f"{found['head']}{nodes[0]}{found['tail']}")
    if not url.database:
        raise ArgumentError("the URL names no database: it ends with /NAME")
    return Address(url.set(drivername="mysql+pymysql"), nodes)


def _node(text: str) -> Node:
    found = _NODE.fullmatch(text)
    if found is None:
        raise ArgumentError(f"{text!r} is not HOST:PORT")
    return Node(found["six"] or found["host"], int(found["port"] or PORT))


def open_engine(text: str, answer: int = ANSWER) -> Engine:
    """An engine for the database of a URL; nothing is connected yet."""
    url, nodes = parse(text)
    if len(nodes) > 1:
        answer = min(answer, ANSWER_OF_ONE)
    engine = create_engine(
        url,
        # Bulk inserts and IN (…) go to the driver with positions, which cost less than names.
        paramstyle="format",
        # What is read in one transaction is of one moment; those that write read the newest.
        isolation_level="REPEATABLE READ",
        pool_recycle=280,
        pool_use_lifo=True,
        pool_size=32,
        pool_timeout=10,
        connect_args={
            "connect_timeout": CONNECT,
            "read_timeout": CONNECT,
            "write_timeout": answer,
            "sql_mode": "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION",
            "init_command": "SET SESSION "
            f"innodb_lock_wait_timeout = {LOCK_WAIT}, lock_wait_timeout = {LOCK_WAIT}",
        },
    )
    event.listen(engine, "do_connect", _Nodes(nodes, answer).connect)
    event.listen(engine, "begin", _begin)
    event.listen(engine, "handle_error", _let_go)
    return engine


class _Nodes:
    """The nodes in the order in which they are tried.  One that stopped takes connections and says
    nothing on them: what it is asked first it has to answer as soon as it has to accept them."""

    def __init__(self, nodes: Sequence[Node], answer: int) -> None:
        self._nodes = nodes
        self._answer = answer
        self._failed: dict[Node, float] = {}
        self._lock = threading.Lock()

    def connect(
        self, dialect: Any, _record: Any, arguments: Sequence[Any], options: Mapping[str, Any]
    ) -> Any:
        """A connection to the first node that works; else the first node's error."""
        failure: Exception | None = None
        for node in self._in_order():
            there = {**options, "host": node.host, "port": node.port}
            try:
                connection = _prepare(dialect, dialect.connect(*arguments, **there))
                connection._read_timeout = self._answer  # noqa: SLF001 - it has no setter
                return connection
            except dialect.loaded_dbapi.Error as error:
                self._note(node)
                log.info("the database at %s can't be used: %s", node, error)
                failure = failure or error
        assert failure is not None
        raise failure

    def _in_order(self) -> list[Node]:
        now = time.monotonic()
        with self._lock:
            shunned = {node for node, at in self._failed.items() if now - at < SHUNNED}
        return sorted(self._nodes, key=shunned.__contains__)

    def _note(self, node: Node) -> None:
        with self._lock:
            self._failed[node] = time.monotonic()


def _prepare(dialect: Any, connection: Any) -> Any:
    """Don't use a node that is a replica of another one, which may be behind, or outside of its
    cluster; one of a Galera cluster reads what the others have acknowledged."""
    with contextlib.ExitStack() as stack:
        stack.callback(connection.close)
        with connection.cursor() as cursor:
            problem = _problem(cursor)
            if problem is not None:
                raise dialect.loaded_dbapi.OperationalError(*problem)
        stack.pop_all()
    return connection


def _problem(cursor: Any) -> tuple[int, str] | None:
    cursor.execute("SHOW VARIABLES WHERE variable_name IN ('wsrep_on', 'read_only')")
    settings = dict(cursor.fetchall())
    if settings.get("read_only") not in (None, "OFF"):
        return READ_ONLY, "this node is read-only"
    if settings.get("wsrep_on") == "ON":
        cursor.execute("SHOW STATUS LIKE 'wsrep_ready'")
        if dict(cursor.fetchall()).get("wsrep_ready") != "ON":
            return NOT_READY, "this node is outside of the cluster"
        cursor.execute("SET SESSION wsrep_sync_wait = 1")
    return None


def _begin(connection: Connection) -> None:
    """Who writes has locked what matters and must see it as it is, not as it was."""
    if connection.get_execution_options().get("dblike_write"):
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")


def _let_go(context: Any) -> None:
    if code_of(context.original_exception) in USELESS:
        context.is_disconnect = True


def code_of(error: BaseException | None) -> int:
    """The number of a server's or the driver's error; 0 where it has none."""
    code = error.args[0] if isinstance(error, Exception) and error.args else 0
    return code if isinstance(code, int) else 0


@contextlib.contextmanager
def lock(connection: Connection, name: str, patience: int) -> Iterator[bool]:
    """Hold a lock of all clients of this node by its name; whether it was had in time."""
    tries = (_take(connection, name) for _ in range(0, patience, LOCK_WAIT))
    held = any(tries)
    try:
        yield held
    finally:
        if held:
            connection.exec_driver_sql("SELECT RELEASE_LOCK(%s)", (name,))


def _take(connection: Connection, name: str) -> bool:
    return connection.exec_driver_sql("SELECT GET_LOCK(%s, %s)", (name, LOCK_WAIT)).scalar() == 1


def explain(error: BaseException | None, address: Address) -> str:
    """Why a database can't be used, and what to do."""
    where = ",".join(map(str, address.nodes))
    user, name = address.url.username or "", address.url.database
    match code_of(error):
        case 1045 | 1698:
            return f"{where} lets no user {user!r} in with this password: look at `database`"
        case 1044 | 1142 | 1227:
            return f"{user!r} may not use {name}: GRANT ALL ON {name}.* TO {user!r}"
        case 1049:
            return f"{where} has no database {name}: CREATE DATABASE {name}"
        case 1040 | 1203 | 1226:
            return f"{where} has too many connections: raise its max_connections"
        case 1290:
            return f"{where} is read-only: SET GLOBAL read_only = OFF, if it is no replica"
        case 1047:
            return f"{where} is outside of its cluster's majority: start the other nodes"
        case code:
            reason = error.args[-1] if isinstance(error, Exception) and error.args else error
            return f"no answer from {where}: is it running? ({code}: {reason})"
