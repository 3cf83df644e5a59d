"""Packs in S3, or in any store that speaks its protocol: PREFIX/packs/ab/ab12….

A pack is written to a file of this host first, then sent as one object, which is there as a whole
or not at all.  Names are our own hashes; an ETag says nothing of the bytes.  The bucket must be
there; credentials come from where Amazon's own programs take them (AWS_ACCESS_KEY_ID and so on).
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar

import boto3
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.client import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ResponseStreamingError,
)

from dblike_delta.seams import Random
from dblike_srv.store.base import Away, is_sound
from dblike_srv.store.spool import SpoolWriter, remove_older

_T = TypeVar("_T")

CONNECTIONS: Final = 32
ATTEMPTS: Final = 5
"""Of one request, with growing pauses: some 7 seconds in all."""
SINGLE: Final = 64 << 20
"""Larger packs go in parts, several at a time."""
CUTS: Final = 4
"""Replies to one request that may be cut short."""
_ABSENT = frozenset(("404", "NoSuchKey", "NotFound"))
_THERE = frozenset(("412", "PreconditionFailed"))
_RACE = frozenset(("409", "ConditionalRequestConflict", "OperationAborted"))


class Cut(Away):
    """A reply ended before it should."""


class S3Store:
    """Packs in the bucket and below the prefix of `s3://bucket/prefix`."""

    def __init__(self, url: str, endpoint: str, temporary: Path, random: Random) -> None:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self._bucket = bucket
        self._prefix = f"{prefix.rstrip('/')}/packs/".lstrip("/")
        self._endpoint = endpoint
        self._temporary = temporary
        self._random = random
        self._client = _Client(endpoint, ATTEMPTS, 30)
        self._probe = _Client(endpoint, 1, 5)
        temporary.mkdir(parents=True, exist_ok=True, mode=0o700)

    def writer(self) -> SpoolWriter:
        return SpoolWriter(self._temporary / self._random.bytes(16).hex(), self.adopt)

    def adopt(self, path: Path, name: bytes) -> None:
        size = path.stat().st_size
        if size > SINGLE:
            if not is_sound(self, name, size):
                self._send_parts(path, name)
        elif not self._send(path, name) and not is_sound(self, name, size):
            self._send(path, name, replace=True)
        path.unlink()

    def settle(self, name: bytes) -> None:
        """An object that is there is durable."""

    def read(self, name: bytes, offset: int, length: int) -> bytes:
        return self._patiently(lambda: self._read(name, offset, length)) if length else b""

    def _patiently(self, work: Callable[[], _T]) -> _T:
        """Again where a reply was cut half-way: below us only whole replies are asked for again."""
        for _ in range(CUTS):
            try:
                return work()
            except Cut:
                continue
        return work()

    def _read(self, name: bytes, offset: int, length: int) -> bytes:
        wanted = f"bytes={offset}-{offset + length - 1}"

        def work(s3: Any) -> tuple[bytes, str]:
            reply = s3.get_object(Bucket=self._bucket, Key=self._key(name), Range=wanted)
            with contextlib.closing(reply["Body"]) as body:
                return bytes(body.read()), str(reply.get("ContentRange", ""))

        data, told = self._call(work)
        if len(data) == length:
            return data
        # A reply may end anywhere, in its head as well: only what it says is evidence.
        if told == f"bytes {offset}-{offset + len(data) - 1}/{offset + len(data)}":
            raise OSError(f"pack {name.hex()} ends at byte {offset + len(data)}")
        raise Cut("the store's reply was cut short")

    def size(self, name: bytes) -> int:
        return self._patiently(lambda: self._size(name))

    def _size(self, name: bytes) -> int:
        try:
            head = self._call(lambda s3: s3.head_object(Bucket=self._bucket, Key=self._key(name)))
        except FileNotFoundError:
            self.check()  # the answer is the same where the whole bucket is gone
            raise
        return int(_said(head, "ContentLength"))

    def delete(self, name: bytes) -> None:
        self._call(lambda s3: s3.delete_object(Bucket=self._bucket, Key=self._key(name)))

    def names(self) -> Iterator[bytes]:
        more: dict[str, str] = {}
        while True:
            page = self._patiently(lambda more=more: self._list(more))  # type: ignore[misc]
            for entry in page.get("Contents", ()):
                text = entry["Key"].rpartition("/")[2]
                if len(text) == 64:
                    yield bytes.fromhex(text)
            if not page["IsTruncated"]:
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _list(self, more: dict[str, str]) -> dict[str, Any]:
        where = {"Bucket": self._bucket, "Prefix": self._prefix, **more}
        page: dict[str, Any] = self._call(lambda s3: s3.list_objects_v2(**where))
        _said(page, "IsTruncated")
        return page

    def _key(self, name: bytes) -> str:
        text = name.hex()
        return f"{self._prefix}{text[:2]}/{text}"

    def _send(self, path: Path, name: bytes, *, replace: bool = False) -> bool:
        """Send a pack in one request; False, and nothing is done, where one of its name is there.

        Also where it is ours, which arrived while its reply was lost.
        """
        unless = {} if replace else {"IfNoneMatch": "*"}
        for last in (False, False, True):
            with path.open("rb") as body:
                try:
                    self._call(
                        lambda s3, body=body: s3.put_object(  # type: ignore[misc]
                            Bucket=self._bucket, Key=self._key(name), Body=body, **unless
                        )
                    )
                except FileExistsError:
                    return False
                except BlockingIOError:
                    if last:
                        raise Away("the store refuses: others write the same pack") from None
                    continue
            break
        return True

    def _send_parts(self, path: Path, name: bytes) -> None:
        large = TransferConfig(multipart_threshold=SINGLE, multipart_chunksize=SINGLE)
        self._call(
            lambda s3: s3.upload_file(str(path), self._bucket, self._key(name), Config=large)
        )
        if not self._has(name, path.stat().st_size):
            raise Away("the store has not kept what it took")

    def _has(self, name: bytes, size: int) -> bool:
        try:
            return self.size(name) == size
        except FileNotFoundError:
            return False

    def check(self) -> None:
        try:
            self._call(lambda s3: s3.head_bucket(Bucket=self._bucket), self._probe)
        except FileNotFoundError:
            where = self._endpoint or "Amazon S3"
            raise Away(f"the store at {where} has no bucket {self._bucket}: make it") from None

    def tidy(self, before_ms: int) -> int:
        """What was written to this host, and the parts of packs that were never completed."""
        removed = remove_older(self._temporary, before_ms)
        page = self._call(
            lambda s3: s3.list_multipart_uploads(Bucket=self._bucket, Prefix=self._prefix)
        )
        for part in page.get("Uploads", ()):
            if part["Initiated"].timestamp() * 1000 < before_ms:
                which = {"Key": part["Key"], "UploadId": part["UploadId"]}
                self._call(
                    lambda s3, which=which: s3.abort_multipart_upload(  # type: ignore[misc]
                        Bucket=self._bucket, **which
                    )
                )
                removed += 1
        return removed

    def _call(self, work: Callable[[Any], _T], client: _Client | None = None) -> _T:
        """Run a request; errors of the protocol become those of files."""
        try:
            return work((client or self._client).get())
        except ClientError as error:
            raise _meaning(error) from error
        except (IncompleteReadError, ResponseStreamingError) as error:
            raise Cut(f"the store can't be reached: {error}") from error
        except (BotoCoreError, S3UploadFailedError) as error:
            raise Away(f"the store can't be reached: {error}") from error


def _said(reply: dict[str, Any], name: str) -> Any:
    """What a reply says; it may have been cut before it came to that."""
    if name not in reply:
        raise Cut("the store's reply was cut short")
    return reply[name]


def _meaning(error: ClientError) -> OSError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code in _ABSENT:
        return FileNotFoundError("no such pack in the store")
    if code in _THERE:
        return FileExistsError("the pack is there already")
    if code in _RACE:
        return BlockingIOError("somebody else writes the same pack")
    if code in ("416", "InvalidRange"):
        return OSError("the pack ends before that byte")
    return Away(f"the store refuses: {error}")  # which says nothing of the pack


class _Client:
    """A client of this process: one made before a fork would share its sockets."""

    def __init__(self, endpoint: str, attempts: int, patience: int) -> None:
        self._make = functools.partial(_connect, endpoint, attempts, patience)
        self._made: Any = None
        self._process = 0
        self._lock = Lock()

    def get(self) -> Any:
        """It, connected."""
        with self._lock:
            if self._made is None or self._process != os.getpid():
                self._made = self._make()
                self._process = os.getpid()
            return self._made


def _connect(endpoint: str, attempts: int, patience: int) -> Any:
    # Checksums of newer SDKs end up inside the objects of some stores that are not Amazon's, and
    # these have no host names for buckets.
    config = Config(
        max_pool_connections=CONNECTIONS,
        connect_timeout=3,
        read_timeout=patience,
        retries={"mode": "standard", "total_max_attempts": attempts},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    return boto3.session.Session().client("s3", endpoint_url=endpoint or None, config=config)
