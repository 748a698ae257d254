"""Commands on a package that are done on a board: who is meant by ``--on``, what goes there, what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from dlx_deploy.commands.given import taking
from dlx_deploy.commands.options import BoardsOption, say, write_page
from dlx_deploy.devices.device import Device
from dlx_deploy.errors import BoardLost, ConfigError, DlxError, EnvironmentMissing
from dlx_deploy.runtime.errors import RuntimeFault
from dlx_deploy.runtime.scratch import Scratch

if TYPE_CHECKING:
    from dlx_deploy.building import Work
    from dlx_deploy.devices.board import RemoteBoard
    from dlx_deploy.pipeline.store import Store
    from dlx_deploy.runtime.package.trust import Trust
    from dlx_deploy.runtime.views import CommandView

__all__ = [
    "SIGN_KEY",
    "BuildOnOption",
    "OnOption",
    "Reaching",
    "attach_proof",
    "boards_of",
    "device_of",
    "finish_proven",
    "labelled_on",
    "package_on",
    "prove_packages",
    "taking_board",
]

SIGN_KEY = "--sign-key"

OnOption = Annotated[
    str | None,
    typer.Option("--on", help="A board that does it, ssh://user@board or one of boards.toml.", metavar="BOARD"),
]

BuildOnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--on",
        help="The board that a target is, ssh://user@board or one of boards.toml: it is measured there; repeatable.",
        metavar="[TARGET=]BOARD",
    ),
]


@dataclass(frozen=True)
class Reaching:
    """How a board is reached and had for oneself, the options in the order of ``--help``."""

    boards: BoardsOption = None
    wait: Annotated[float, typer.Option("--wait", help="With --on: wait so many seconds for others to end.", min=0)] = (
        0.0
    )
    steal: Annotated[bool, typer.Option("--steal", help="With --on: take the board from whoever measures.")] = False
    python: Annotated[str, typer.Option("--python", help="With --on: the Python there, python3.10 or a path.")] = (
        "python3"
    )


def taking_board(command: Callable[..., None]) -> Callable[..., None]:
    """``command``, which has a parameter that is a ``Reaching``, as a function of its fields."""
    return taking(Reaching, command, last=True)


@contextmanager
def device_of(on: str | None, reaching: Reaching) -> Iterator[Device]:
    """This machine, or the board that ``on`` means, for as long as the login at it lasts.

    Raises:
        ConfigError: no such board, or several. BoardError: it cannot be reached.
    """
    if on is None:
        from dlx_deploy.devices.local import ThisMachine

        yield ThisMachine()
        return
    with _board(on, reaching) as board:
        yield board


@contextmanager
def boards_of(on: Sequence[str], targets: Sequence[str], asked: Reaching) -> Iterator[Mapping[str, RemoteBoard]]:
    """Target name → the board that ``on`` says it is, as ``TARGET=BOARD`` or, where there is one target, ``BOARD``;
    inside, that is the device of the target.

    Raises:
        ConfigError: a target is none of ``targets`` or has two boards, or it is not said which target a board is.
        BoardError: a board cannot be reached, or is not what the target describes.
    """
    from dlx_deploy.devices.choice import reaching
    from dlx_deploy.devices.fits import check_fits
    from dlx_deploy.targets import load_target

    profiles = {profile.name: profile for profile in (load_target(name).profile for name in targets)}
    found: dict[str, RemoteBoard] = {}
    with ExitStack() as stack:
        for given in on:
            target, board = _pair(given, list(profiles))
            if target in found:
                raise ConfigError(f"--on {given}: {target} has a board already; a target is measured on one")
            found[target] = stack.enter_context(_board(board, asked))
            check_fits(found[target].connection.name, found[target].host, profiles[target])
        stack.enter_context(reaching(found))
        try:
            yield found
        except BoardLost as e:
            raise BoardLost(f"{e}: it goes on after the last finished stage, which is stored") from e


def _pair(given: str, targets: Sequence[str]) -> tuple[str, str]:
    """The target and the board of one ``--on``."""
    from dlx_deploy.targets import load_target

    name, equals, board = given.partition("=")
    if equals and "://" not in name:
        target = load_target(name).profile.name
        if target not in targets:
            raise ConfigError(f"--on {given}: {name} is not built; the targets are {', '.join(targets)}")
        return target, board
    if len(targets) != 1:
        raise ConfigError(f"--on {given}: which of {', '.join(targets)} is it? write --on TARGET={given}")
    return targets[0], given


@contextmanager
def _board(on: str, asked: Reaching) -> Iterator[RemoteBoard]:
    from dlx_deploy.devices.board import RemoteBoard
    from dlx_deploy.devices.inventory import resolve_boards
    from dlx_deploy.devices.measuring import Manners
    from dlx_deploy.devices.ssh.address import parse_address
    from dlx_deploy.devices.ssh.openssh import SshConnection

    boards = resolve_boards([on], asked.boards)
    if len(boards) != 1:
        names = ", ".join(board.name for board in boards)
        raise ConfigError(f"--on {on}: these are {len(boards)} boards ({names}); it is measured on one: name it")
    manners = Manners(asked.wait, asked.steal, boards[0].power_mode)
    with SshConnection(parse_address(boards[0].address), asked.python.removeprefix("~/")) as connection:
        yield RemoteBoard(connection, say, manners)


def package_on(device: Device, package: Path, trust: Trust | None) -> str:
    """Where ``package`` is for a command on ``device``. What goes to a board is opened here first, as ``trust`` asks,
    and its signature is verified there again, before anything of it is run.

    Raises:
        PackageError: it is none, or not signed so. BoardError: it cannot be brought there. BackendMissing: what
            verifies is not here, or not there.
    """
    from dlx_deploy.devices.board import RemoteBoard

    if not isinstance(device, RemoteBoard):
        return device.put(package)
    from dlx_deploy.devices.verifying import verification
    from dlx_deploy.runtime.package.contents import open_package

    signed = open_package(package, trust).signed
    there = device.put(package)
    if signed is not None and trust is not None:
        path = Path(signed.signature)
        by = device.check_signature(there, path, verification(trust, signed.by, path.read_bytes()))
        say(f"{device.connection.name}: {package.name} is signed there by {by}")
    return there


def labelled_on(
    device: Device, on: str | None, package: Path, data: Path, trust: Trust | None, slices: str | None = None
) -> str:
    """Where the labelled samples at ``data`` are for a command on ``device``: themselves, or as arrays on a board,
    which then needs no library to read them with. ``slices``: columns that the package names no slices by.

    Raises:
        InputError, PackageError: as the package's ``verify``. BoardError: they cannot be brought there.
    """
    if on is None:
        return device.put(data)
    from dlx_deploy.runtime.commands.actions import VerifyOptions, listed_columns
    from dlx_deploy.runtime.package.contents import open_package
    from dlx_deploy.runtime.tasks.labelled_arrays import names_of, read_labelled, write_arrays

    opened = open_package(package, trust)
    task = opened.task
    labelled = read_labelled(task, data, listed_columns(VerifyOptions(slices=slices).budgets(opened.budgets)))
    with Scratch("dlx-deploy-work") as folder:
        arrays = folder / "labelled.npz"
        feeds, names = task.inputs.read(labelled.given), names_of(task, data, labelled)
        write_arrays(arrays, feeds, labelled.targets, names, labelled.columns)
        return device.put(arrays)


def attach_proof(
    view: CommandView, package: Path, store: Path, trust: Trust | None, sign_key: Path | None = None
) -> None:
    """Join what a board has shown to the manifest beside ``package``, and write the report there anew; or say why not:
    the verdicts hold all the same. With a key the manifest is signed, the proof in it.

    Raises:
        ConfigError, EnvironmentMissing: it cannot be signed.
    """
    from dlx_deploy.delivery import report_path
    from dlx_deploy.report.proofs import attach
    from dlx_deploy.runtime.package.archive import to_json

    with Scratch("dlx-deploy-work") as folder:
        proof = folder / "proof.json"
        proof.write_bytes(to_json(view.data))
        try:
            joined = attach(package, proof, store, trust)
        except ConfigError as e:
            say(f"the proof is not attached: {str(e).replace(f'{proof}: ', '').replace(str(proof), 'it')}")
            return
    say(f"the proof is attached to {joined.manifest}")
    _sign(Path(joined.manifest), sign_key)
    page = report_path(package)
    if not page.exists():
        return
    from dlx_deploy.report.page.asked import view_reports

    try:
        write_page(page, view_reports([str(package)], store).html)
    except EnvironmentMissing as e:
        say(f"{page} is as it was before: {e}")


def finish_proven(view: CommandView, attaching: Callable[[], None], finish: Callable[[], None]) -> None:
    """``finish`` shows what a board has shown, also where ``attaching`` it fails: the measurement is not lost.

    Raises:
        RuntimeFault: a gate did not pass. DlxError: it did, and the proof cannot be attached.
    """
    try:
        attaching()
    except (DlxError, RuntimeFault) as e:
        if view.failure is not None:  # the exit code is the gate's
            say(f"error: {e}")
        finish()
        raise
    finish()


def _sign(manifest: Path, key: Path | None) -> None:
    """Sign ``manifest``, or say that a signature which is there is of what it was before."""
    from dlx_deploy.runtime.package.bundle import SUFFIX

    if key is not None:
        from dlx_deploy.signing import SigningKey, sign_manifest

        for text in sign_manifest(manifest, SigningKey(key, option=SIGN_KEY)).text.splitlines():
            say(text)
    elif (old := Path(f"{manifest}{SUFFIX}")).exists():
        say(f"warning: {old} is of the manifest as it was before the proof; sign it again with {SIGN_KEY}")


def prove_packages(work: Work, output: Path, boards: Mapping[str, RemoteBoard], store: Path) -> None:
    """Verify each package of ``work`` that was built on a board, there, on the build's own test split: what answers
    were judged by here is this machine's arithmetic. The proofs are attached.

    Raises:
        RuntimeFault: a package's gate does not pass on its board. BoardError: a board is lost. DlxError: a proof cannot
            be attached.
    """
    from dlx_deploy.delivery import package_path

    failures: list[RuntimeFault | DlxError] = []
    for build in work.builds:
        if build.target_name not in boards:
            continue
        board, package = boards[build.target_name], package_path(work.config, build, output)
        labelled = labelled_on(board, board.name, package, _test_split(package, work.store), None)
        threads = f"--threads={work.config.verify.threads}"
        view = board.run(board.put(package), ["verify", f"--data={labelled}", threads])
        for text in view.text.splitlines():
            say(f"on {board.name}: {text}")
        failures += [view.failure] if view.failure else []
        try:
            attach_proof(view, package, store, None)
        except (DlxError, RuntimeFault) as e:  # the other boards' verdicts are not lost by it
            say(f"error: {e}")
            failures.append(e)
    if failures:
        raise _first(failures)


def _first(failures: Sequence[RuntimeFault | DlxError]) -> RuntimeFault | DlxError:
    """What a command ends with: a gate before a proof that could not be attached, which has been said."""
    return min(failures, key=lambda failure: (isinstance(failure, DlxError), failure.exit_code))


def _test_split(package: Path, store: Store) -> Path:
    """The data of the build of ``package``, as its store has them."""
    from dlx_deploy.pipeline.manifest import Manifest

    manifest = msgspec.json.decode(package.with_suffix(".manifest.json").read_bytes(), type=Manifest)
    step = next(step for step in manifest.steps if step.document.stage == "data")
    return store.output_path(step.key, "data")
