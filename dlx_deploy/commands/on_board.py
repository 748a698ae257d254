"""Commands on a package that are done on a board: who is meant by ``--on``, what goes there, what comes back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlx_deploy.commands.options import say, write_page
from dlx_deploy.devices.device import Device
from dlx_deploy.errors import ConfigError, EnvironmentMissing

if TYPE_CHECKING:
    from dlx_deploy.runtime.package.trust import Trust
    from dlx_deploy.runtime.views import CommandView

__all__ = ["OnOption", "attach_proof", "device_of", "labelled_on", "package_on"]

OnOption = Annotated[
    str | None,
    typer.Option("--on", help="A board that does it, ssh://user@board or one of boards.toml.", metavar="BOARD"),
]


@contextmanager
def device_of(on: str | None, inventory: Path | None) -> Iterator[Device]:
    """This machine, or the board that ``on`` means, for as long as the login at it lasts.

    Raises:
        ConfigError: no such board, or several. BoardError: it cannot be reached.
    """
    if on is None:
        from dlx_deploy.devices.local import ThisMachine

        yield ThisMachine()
        return
    from dlx_deploy.devices.board import RemoteBoard
    from dlx_deploy.devices.inventory import resolve_boards
    from dlx_deploy.devices.ssh.address import parse_address
    from dlx_deploy.devices.ssh.openssh import SshConnection

    boards = resolve_boards([on], inventory)
    if len(boards) != 1:
        names = ", ".join(board.name for board in boards)
        raise ConfigError(f"--on {on}: these are {len(boards)} boards ({names}); a package is measured on one: name it")
    with SshConnection(parse_address(boards[0].address)) as connection:
        yield RemoteBoard(connection, say)


def package_on(device: Device, on: str | None, package: Path, trust: Trust | None) -> str:
    """Where ``package`` is for a command on ``device``; what goes to a board is opened here first, as ``trust`` asks.

    Raises:
        PackageError: it is none, or not signed so. BoardError: it cannot be brought there.
    """
    if on is not None:
        from dlx_deploy.runtime.package.contents import open_package

        open_package(package, trust)
    return device.put(package)


def labelled_on(device: Device, on: str | None, package: Path, data: Path, trust: Trust | None) -> str:
    """Where the labelled samples at ``data`` are for a command on ``device``: themselves, or as arrays on a board,
    which then needs no library to read them with.

    Raises:
        InputError, PackageError: as the package's ``verify``. BoardError: they cannot be brought there.
    """
    if on is None:
        return device.put(data)
    from dlx_deploy.runtime.package.contents import open_package
    from dlx_deploy.runtime.tasks.labelled_arrays import names_of, read_labelled, write_arrays

    task = open_package(package, trust).task
    labelled = read_labelled(task, data)
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "labelled.npz"
        write_arrays(arrays, task.inputs.read(labelled.given), labelled.targets, names_of(task, data, labelled))
        return device.put(arrays)


def attach_proof(view: CommandView, package: Path, store: Path, trust: Trust | None) -> None:
    """Join what a board has shown to the manifest beside ``package``, and write the report there anew; or say why not:
    the verdicts hold all the same.
    """
    from dlx_deploy.delivery import report_path
    from dlx_deploy.report.proofs import attach
    from dlx_deploy.runtime.package.archive import to_json

    with tempfile.TemporaryDirectory() as folder:
        proof = Path(folder) / "proof.json"
        proof.write_bytes(to_json(view.data))
        try:
            joined = attach(package, proof, store, trust)
        except ConfigError as e:
            say(f"the proof is not attached: {str(e).replace(f'{proof}: ', '').replace(str(proof), 'it')}")
            return
    say(f"the proof is attached to {joined.manifest}")
    page = report_path(package)
    if not page.exists():
        return
    from dlx_deploy.report.page.asked import view_reports

    try:
        write_page(page, view_reports([str(package)], store).html)
    except EnvironmentMissing as e:
        say(f"{page} is as it was before: {e}")
