"""`dblike service`: `watch` as a systemd user unit."""

from __future__ import annotations

import click

from dblike_cli.exits import Exit
from dblike_cli.options import Common, command


@click.group("service", context_settings={"help_option_names": ["-h", "--help"]})
def service() -> None:
    """Run `dblike watch` for this folder whenever you are logged in, through systemd."""


@command("install")
def install(common: Common) -> Exit:
    r"""Install and start the unit for this folder.

    \b
    Example:
      dblike -C ~/Files service install
      loginctl enable-linger    # to sync also while you are not logged in
    """
    from dblike_cli import service as units
    from dblike_cli.config import unit_directory
    from dblike_cli.session import find_root

    file, runs = units.install(find_root(common.directory), unit_directory())
    start = f"systemctl --user enable --now {file.name}"
    common.output().result(
        {"unit": str(file), "active": runs},
        [f"{file} is installed" + (" and runs" if runs else f"; start it with: {start}")],
    )
    return Exit.DONE


@command("uninstall")
def uninstall(common: Common) -> Exit:
    r"""Stop and remove the unit for this folder.

    \b
    Example:
      dblike -C ~/Files service uninstall
    """
    from dblike_cli import service as units
    from dblike_cli.config import unit_directory
    from dblike_cli.session import find_root

    removed = units.uninstall(find_root(common.directory), unit_directory())
    line = "removed" if removed else "there was none"
    common.output().result({"removed": removed}, [line])
    return Exit.DONE


@command("status")
def status(common: Common) -> Exit:
    r"""Say whether the unit for this folder runs; exit 3 where it does not.

    \b
    Example:
      dblike -C ~/Files service status
    """
    from dblike_cli import service as units
    from dblike_cli.session import find_root

    root = find_root(common.directory)
    active = units.is_active(root)
    common.output().result(
        {"unit": units.unit_name(root), "active": active},
        [f"{units.unit_name(root)} {'runs' if active else 'does not run'}"],
    )
    return Exit.DONE if active else Exit.PENDING


for each in (install, uninstall, status):
    service.add_command(each)
