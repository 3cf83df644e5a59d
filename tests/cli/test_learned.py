"""Sites that a site named: which of them may get the token, and where they are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from dblike_cli.config import Config, Tls
from dblike_cli.learned import fit, is_stale, read_learned, write_learned

SECURE = Config(servers=["https://a.example.org"])
LOCAL = Config(servers=["http://127.0.0.1:8000"])
PLAIN = Config(servers=["http://a.example.org"], tls=Tls(plain=True))
MIXED = Config(servers=["https://a.example.org", "http://127.0.0.1:8000"])


@pytest.mark.parametrize(
    ("config", "url", "good"),
    [
        (SECURE, "https://b.example.org/sync/", True),
        (SECURE, "http://127.0.0.1:8001", False),
        (MIXED, "http://127.0.0.1:8001", False),
        (LOCAL, "http://127.0.0.1:8001", True),
        (LOCAL, "http://b.example.org", False),
        (LOCAL, "https://b.example.org", True),
        (PLAIN, "http://b.example.org", True),
        (PLAIN, "ftp://b.example.org", False),
        (PLAIN, "http://user:secret@b.example.org", False),
        (PLAIN, "http://b.example.org,http://c.example.org", False),
        (PLAIN, "", False),
    ],
)
def test_the_token_goes_where_the_config_would_let_it_go(
    config: Config, url: str, good: bool
) -> None:
    assert fit([url], config) == ([url.rstrip("/")] if good else [])


def test_no_site_can_name_more_than_some() -> None:
    assert len(fit([f"https://s{n}.example.org" for n in range(1000)], SECURE)) == 32


def test_they_are_kept_and_checked_again(tmp_path: Path) -> None:
    file = tmp_path / "sites"
    assert is_stale(file)
    assert read_learned(file, LOCAL) == []
    write_learned(file, ["http://127.0.0.1:1", "https://b.example.org"], LOCAL)
    assert not is_stale(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_learned(file, SECURE) == ["https://b.example.org"]
    file.write_text('{"not": "a list"}')
    assert read_learned(file, LOCAL) == []
