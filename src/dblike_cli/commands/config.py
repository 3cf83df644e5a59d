"""`dblike config`: the JSON config."""

from __future__ import annotations

import json
from typing import Any

import click

from dblike_cli.exits import Exit
from dblike_cli.options import Common, command


@command("config")
@click.argument("key", required=False)
@click.argument("value", required=False)
def config(common: Common, key: str | None, value: str | None) -> Exit:
    r"""Show the config, show a key, or set one.

    Every key can also come from the environment: limits.up is DBLIKE_LIMITS_UP.  A running `watch`
    takes a change when it is started again.

    \b
    Example:
      dblike config
      dblike config limits.up 500000
      dblike config servers https://a.example.org,https://b.example.org
    """
    from dblike_cli.config import get_key, read_config, render_config, set_key
    from dblike_cli.credentials import write_private
    from dblike_cli.session import find_root

    file = find_root(common.directory) / ".dblike" / "config.json"
    output = common.output()
    if key is None:
        shown = read_config(file)
        output.result(shown, [render_config(shown).decode().rstrip()])
    elif value is None:
        found = get_key(read_config(file), key)
        output.result(found, [_text(found)])
    else:
        changed = set_key(file, key, value)
        write_private(file, render_config(changed))
        output.result(get_key(changed, key))
    return Exit.DONE


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
