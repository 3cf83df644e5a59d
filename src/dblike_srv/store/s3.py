"""Packs in S3, or in any store that speaks its protocol: PREFIX/packs/ab/ab12….

A pack is written to a file of this host first, then sent as one object.  Names are our own hashes;
an ETag says nothing of the bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.client import Config
from botocore.exceptions import BotoCoreError, ClientError

from dblike_delta.seams import Random
from dblike_srv.store.spool import SpoolWriter

_T = TypeVar("_T")

CONNECTIONS: Final = 32
ATTEMPTS: Final = 8
SINGLE: Final = 64 << 20
"""Larger packs go in parts, several at a time."""
_ABSENT = frozenset(("404", "NoSuchKey", "NotFound"))
_THERE = frozenset(("412", "PreconditionFailed"))


class S3Store:
    """Packs in the bucket and below the prefix of `s3://bucket/prefix`."""

    def __init__(self, url: str, endpoint: str, temporary: Path, random: Random) -> None:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self._bucket = bucket
        self._prefix = f"{prefix.rstrip('/')}/packs/".lstrip("/")
        self._endpoint = endpoint
        self._temporary = temporary
        self._random = random
        self._client: Any = None
        self._process = 0
        self._lock = Lock()
        temporary.mkdir(parents=True, exist_ok=True, mode=0o700)

    def writer(self) -> SpoolWriter:
        return SpoolWriter(self._temporary / self._random.bytes(16).hex(), self.adopt)

    def adopt(self, path: Path, name: bytes) -> None:
        if path.stat().st_size <= SINGLE:
            self._send(path, name)
        elif not self._is_there(name):
            large = TransferConfig(multipart_threshold=SINGLE, multipart_chunksize=SINGLE)
            self._call(
                lambda s3: s3.upload_file(str(path), self._bucket, self._key(name), Config=large)
            )
        path.unlink()

    def read(self, name: bytes, offset: int, length: int) -> bytes:
        if not length:
            return b""
        wanted = f"bytes={offset}-{offset + length - 1}"
        data: bytes = self._call(
            lambda s3: s3.get_object(Bucket=self._bucket, Key=self._key(name), Range=wanted)[
                "Body"
            ].read()
        )
        if len(data) != length:
            raise OSError(f"pack {name.hex()} ends at byte {offset + len(data)}")
        return data

    def size(self, name: bytes) -> int:
        head = self._call(lambda s3: s3.head_object(Bucket=self._bucket, Key=self._key(name)))
        return int(head["ContentLength"])

    def delete(self, name: bytes) -> None:
        self._call(lambda s3: s3.delete_object(Bucket=self._bucket, Key=self._key(name)))

    def names(self) -> Iterator[bytes]:
        more: dict[str, str] = {}
        while True:
            page = self._list(more)
            for entry in page.get("Contents", ()):
                text = entry["Key"].rpartition("/")[2]
                if len(text) == 64:
                    yield bytes.fromhex(text)
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _list(self, more: dict[str, str]) -> dict[str, Any]:
        where = {"Bucket": self._bucket, "Prefix": self._prefix, **more}
        page: dict[str, Any] = self._call(lambda s3: s3.list_objects_v2(**where))
        return page

    def _key(self, name: bytes) -> str:
        text = name.hex()
        return f"{self._prefix}{text[:2]}/{text}"

    def _send(self, path: Path, name: bytes) -> None:
        """One request, which does nothing where the pack is there already."""
        with path.open("rb") as body:
            try:
                self._call(
                    lambda s3: s3.put_object(
                        Bucket=self._bucket, Key=self._key(name), Body=body, IfNoneMatch="*"
                    )
                )
            except FileExistsError:
                pass

    def _is_there(self, name: bytes) -> bool:
        try:
            self.size(name)
        except FileNotFoundError:
            return False
        return True

    def _call(self, work: Callable[[Any], _T]) -> _T:
        """Run a request; errors of the protocol become those of files."""
        try:
            return work(self._connected())
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _ABSENT:
                raise FileNotFoundError("no such pack in the store") from None
            if code in _THERE:
                raise FileExistsError("the pack is there already") from None
            if code in ("416", "InvalidRange"):
                raise OSError("the pack ends before that byte") from None
            raise OSError(f"the store refuses: {error}") from error
        except BotoCoreError as error:
            raise OSError(f"the store can't be reached: {error}") from error

    def _connected(self) -> Any:
        """The client of this process: one made before a fork would share its sockets."""
        with self._lock:
            if self._client is None or self._process != os.getpid():
                self._client = _connect(self._endpoint)
                self._process = os.getpid()
            return self._client


def _connect(endpoint: str) -> Any:
    # Checksums of newer SDKs end up inside the objects of some stores that are not Amazon's.
    config = Config(
        max_pool_connections=CONNECTIONS,
        connect_timeout=5,
        read_timeout=60,
        retries={"mode": "adaptive", "max_attempts": ATTEMPTS},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.session.Session().client("s3", endpoint_url=endpoint or None, config=config)
