"""Inputs of a command that a board does: files and folders go over, and are called there what they are called here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dlx_deploy.runtime.errors import RuntimeFault
from dlx_deploy.runtime.views import Outcome

if TYPE_CHECKING:
    from dlx_deploy.devices.device import Device
    from dlx_deploy.runtime.package.contents import Package
    from dlx_deploy.runtime.views import CommandView

__all__ = ["Handed", "hand_over"]


@dataclass(frozen=True)
class Handed:
    """``words``: the inputs as the device knows them; ``names``: what those that went there are called here."""

    words: Sequence[str]
    names: Mapping[str, str] = field(default_factory=dict)

    def run(self, device: Device, package: str, command: Sequence[str]) -> CommandView:
        """What the ``package`` there says to ``command`` on these inputs, by the names of here.

        Raises:
            RuntimeFault, DlxError: as ``Device.run``.
        """
        try:
            view = device.run(package, [*command, *(["--", *self.words] if self.words else [])])
        except RuntimeFault as e:
            raise self._fault(e) from e
        if not self.names:
            return view
        data = msgspec.json.decode(self._said(msgspec.json.encode(view.data).decode(), quoted=True), type=dict)
        return Outcome(data, self._said(view.text), self._fault(view.failure) if view.failure else None)

    def _fault(self, fault: RuntimeFault) -> RuntimeFault:
        return type(fault)(self._said(str(fault))) if self.names else fault

    def _said(self, text: str, quoted: bool = False) -> str:
        for there, here in self.names.items():
            text = text.replace(there, msgspec.json.encode(here).decode()[1:-1] if quoted else here)
        return text


def hand_over(device: Device, package: Package, inputs: Sequence[str]) -> Handed:
    """The ``inputs`` of a command on ``device``; to a board those that are files or folders are brought, all at once.

    Raises:
        InputError: one is no sample that the package reads, as where the command is done here.
        BoardError: they cannot be brought there.
    """
    from dlx_deploy.devices.board import RemoteBoard

    for one in inputs:
        package.task.inputs.check_argument(one)
    files: dict[str, Path] = {}
    places: dict[str, str] = {}
    for i, one in enumerate(inputs):
        name = f"{i:06}"  # of one length: none is the beginning of another
        if inside := _inside(one, name):
            files.update(inside)
            places[one] = name if os.path.isdir(one) else next(iter(inside))
    if not files or not isinstance(device, RemoteBoard):
        return Handed(inputs)
    folder = device.put_all(files)
    there = {one: f"{folder}/{place}" for one, place in places.items()}
    return Handed([there.get(one, one) for one in inputs], {place: one for one, place in there.items()})


def _inside(word: str, name: str) -> Mapping[str, Path]:
    """The file, or the files of the folder, by what they are called in an archive; of any other word nothing."""
    path = Path(word)
    if os.path.isfile(word):  # and not the path's own, which raises for a text that is too long for a name
        return {f"{name}{path.suffix}": path}
    below = [found for found in path.rglob("*") if found.is_file()] if os.path.isdir(word) else []
    return {f"{name}/{found.relative_to(path).as_posix()}": found for found in below}
