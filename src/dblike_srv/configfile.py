"""Where the server's config file is, and writing a first one."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any, Final

import msgspec

from dblike_delta.system import give_to_owner, sync_path
from dblike_srv.config import Config, ConfigError, decode_config, load_config, overlay

NAME: Final = "config.json"
DATA: Final = Path("dblike-data")


class Absent(ConfigError):
    """There is no server here yet."""


def locate(config: Path | None, data: Path | None) -> tuple[Path, Path | None]:
    """The config file, and the data directory where the file need not name it.

    A file that is named (by the option, by DBLIKE_CONFIG) says where the data are; else the file is
    `config.json` in the data directory.
    """
    named = os.environ.get("DBLIKE_CONFIG")
    if config is None and named and data is None:
        config = Path(named)
    if config is not None:
        return config, data
    data = data or Path(os.environ.get("DBLIKE_DATA") or DATA)
    return data / NAME, data


def find_config(config: Path | None = None, data: Path | None = None) -> Config:
    """The config that there is; raises Absent, ConfigError."""
    file, data = locate(config, data)
    if not file.exists():
        if config is None and os.environ.get("DBLIKE_CLUSTER_KEY"):
            if data is None:  # DBLIKE_CONFIG names the file: an empty site is not what is meant
                made_by = f"`dblike-server init --config {file}` makes it"
                raise ConfigError(f"DBLIKE_CONFIG names {file}, and there is none; {made_by}")
            return load_config(None, data=data)  # all of it comes from the environment
        raise Absent(f"no server at {file}: `dblike-server init` or `run` makes one")
    if file.is_file():
        _check_secret(file)
    return _load(file, data)


def find_or_create(config: Path | None, data: Path | None, **values: Any) -> tuple[Config, bool]:
    """The config, and whether it was made just now; `values` go into a new one."""
    try:
        return find_config(config, data), False
    except Absent:
        return create_config(config, data, **values), True


class Draft(msgspec.Struct, frozen=True):
    """A config that is not written yet."""

    file: Path
    data: Path | None
    values: dict[str, Any]
    new: bool

    def config(self) -> Config:
        """What it is once it is written."""
        return _placed(overlay(self.values, data=self.data), self.file, self.data)

    def write(self) -> Config:
        """Write it, readable by its owner only, or by whom the former one was readable."""
        if self.new:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.file.parent / self.values["data"]).mkdir(mode=0o700, parents=True, exist_ok=True)
            self._put(self.file)
        else:
            fresh = self.file.with_name(f".{self.file.name}.{os.getpid()}")
            self._put(fresh, like=self.file.stat())
            fresh.rename(self.file)
        sync_path(self.file.parent)
        return _load(self.file, self.data)

    def _put(self, file: Path, *, like: os.stat_result | None = None) -> None:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        if like is None:
            give_to_owner(descriptor, file.parent)
        else:
            with contextlib.suppress(OSError):  # not root, and the file was another user's
                os.fchown(descriptor, like.st_uid, like.st_gid)
                os.fchmod(descriptor, like.st_mode & 0o777)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            json.dump(self.values, out, indent=2)
            out.write("\n")
            out.flush()
            os.fsync(out.fileno())


def draft_config(config: Path | None, data: Path | None, **values: Any) -> Draft:
    """A first config, with fresh secrets."""
    file, data = locate(config, data)
    fresh = {key: value for key, value in values.items() if value is not None}
    if config is None:
        fresh["data"] = "."
    else:
        fresh["data"] = str(data.absolute() if data else DATA)
    fresh.setdefault("cluster_key", secrets.token_hex(32))
    decode_config(dict(fresh))
    return Draft(file, data, fresh, new=True)


def create_config(config: Path | None, data: Path | None, **values: Any) -> Config:
    """Write a first config, with fresh secrets."""
    return draft_config(config, data, **values).write()


def draft_change(config: Path | None, data: Path | None, **values: Any) -> Draft:
    """The config that is there with other values of these keys; all else in it stays."""
    file, data = locate(config, data)
    held = json.loads(file.read_text(encoding="utf-8-sig")) | values
    decode_config(dict(held))
    return Draft(file, data, held, new=False)


def change_config(config: Path | None, data: Path | None, **values: Any) -> Config:
    """Set keys of the config that is there."""
    return draft_change(config, data, **values).write()


def _load(file: Path, data: Path | None) -> Config:
    return _placed(load_config(file, data=data), file, data)


def _placed(config: Config, file: Path, data: Path | None) -> Config:
    """A file's relative `data` is beside the file, so that a directory may be moved as a whole."""
    if data is not None or "DBLIKE_DATA" in os.environ or Path(config.data).is_absolute():
        return config
    return msgspec.structs.replace(config, data=str(file.absolute().parent / config.data))


def _check_secret(file: Path) -> None:
    """A config with the cluster's key is nobody else's to read."""
    if file.stat().st_mode & 0o007 and "cluster_key" in file.read_text(errors="replace"):
        raise ConfigError(f"{file} holds a secret and everybody may read it: chmod o= {file}")
