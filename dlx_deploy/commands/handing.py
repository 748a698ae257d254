"""Inputs of a command that a board does: files and folders go over, and are called there what they are called here.

There they have numbers for names: any name of here is one that a board can have, and is found in what it says.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dlx_deploy.runtime.errors import InputError, RuntimeFault
from dlx_deploy.runtime.files import reason
from dlx_deploy.runtime.scratch import Scratch
from dlx_deploy.runtime.tasks.source import Sample
from dlx_deploy.runtime.views import Outcome
from dlx_deploy.runtime.words import line

if TYPE_CHECKING:
    from dlx_deploy.devices.board import RemoteBoard
    from dlx_deploy.devices.device import Device
    from dlx_deploy.runtime.package.contents import Package
    from dlx_deploy.runtime.tasks.task import Inputs
    from dlx_deploy.runtime.views import CommandView

__all__ = ["Handed", "hand_over"]

SUFFIX = r"\.[A-Za-z0-9]+"
"""Of a file's name, by which it may be told what it holds; it stays."""


@dataclass(frozen=True)
class Handed:
    """``words``: what the command line on the device ends with; ``names``: what is in ``folder`` there, by the names
    of here."""

    words: Sequence[str]
    folder: str = ""
    names: Mapping[str, str] = field(default_factory=dict)

    def run(self, device: Device, package: str, command: Sequence[str]) -> CommandView:
        """What the ``package`` there says to ``command`` on these inputs, by the names of here.

        Raises:
            RuntimeFault, DlxError: as ``Device.run``.
        """
        try:
            view = device.run(package, [*command, *self.words])
        except RuntimeFault as e:
            raise self._fault(e) from e
        if not self.names:
            return view
        quoted = {there: json.dumps(here)[1:-1] for there, here in self.names.items()}
        shown = {there: line(here) for there, here in self.names.items()}
        data = json.loads(self._said(json.dumps(view.data), quoted))
        return Outcome(data, self._said(view.text, shown), self._fault(view.failure) if view.failure else None)

    def _fault(self, fault: RuntimeFault) -> RuntimeFault:
        return type(fault)(self._said(str(fault), self.names)) if self.names else fault

    def _said(self, text: str, names: Mapping[str, str]) -> str:
        """``text`` with ``names`` for those of there; a point behind a number may be a sentence's end."""

        def called(found: re.Match[str]) -> str:
            place, suffix = found[1], found[2] or ""
            return names.get(place + suffix) or names.get(place, found[0]) + suffix * (place in names)

        return re.sub(rf"{re.escape(self.folder)}/(\d+(?:/\d+)?)({SUFFIX})?", called, text)


def hand_over(
    device: Device, package: Package, inputs: Sequence[str], are_lines: bool = False, limit: int | None = None
) -> Handed:
    """The ``inputs`` of a command on ``device``; to a board those that are files or folders are brought, all at once.

    ``are_lines``: they are lines of a file or of the standard input, and no words of the command line. ``limit``: the
    command ends after so many samples, and what it would not come to does not go there.

    Raises:
        InputError: one is no sample that the package reads, as where the command is done here, or cannot be read.
        BoardError: they cannot be brought there.
    """
    from dlx_deploy.devices.board import RemoteBoard

    if isinstance(device, RemoteBoard):
        found = {one: _samples_of(package.task.inputs, one, are_lines) for one in dict.fromkeys(inputs)}
        return _brought(device, *_within(found, inputs, limit), are_lines)
    for one in inputs:
        package.task.inputs.check_argument(one)
    return Handed(_ended(inputs))


def _within(
    found: Mapping[str, Sequence[Sample]], given: Sequence[str], limit: int | None
) -> tuple[Mapping[str, Sequence[Sample]], Sequence[str]]:
    """Of ``found`` and ``given`` what is read before there are ``limit`` samples; of any file comes one at least."""
    if limit is None or limit < 1:  # the device refuses that
        return found, given
    left, kept, asked = limit, dict[str, Sequence[Sample]](), list[str]()
    for one in given:
        if left > 0:
            asked.append(one)
            kept.setdefault(one, found[one][:left])  # at its first place it has most of what is left
            left -= max(len(found[one]), 1)
    return kept, asked


def _brought(
    board: RemoteBoard, found: Mapping[str, Sequence[Sample]], given: Sequence[str], are_lines: bool
) -> Handed:
    places: dict[str, str] = {}
    samples: dict[str, Sample] = {}
    for i, (one, inside) in enumerate(found.items()):
        if os.path.isdir(one) and inside:
            places[one] = str(i)
            samples.update({f"{i}/{j:09}{_suffix(sample)}": sample for j, sample in enumerate(inside)})
        elif inside:
            places[one] = f"{i}{_suffix(inside[0])}"
            samples[places[one]] = inside[0]
        else:
            _check_utf8(one)
    folder = board.put_all({place: Path(str(sample.given)) for place, sample in samples.items()}) if samples else ""
    words = [f"{folder}/{places[one]}" if one in places else one for one in given]
    names = {place: sample.name for place, sample in samples.items()}
    names.update({place: one for one, place in places.items()})
    return Handed(["--file", _put_lines(board, words)] if are_lines else _ended(words), folder, names)


def _samples_of(inputs: Inputs, one: str, is_line: bool) -> Sequence[Sample]:
    """The files behind ``one``, in their order, as where it is read here; none: it is no file but the sample itself.

    Raises:
        InputError: as ``Inputs.check_argument`` and ``open_source``, or what it names is nothing that can be sent.
    """
    opener = getattr(inputs, "open_source", None)
    try:
        inputs.check_argument(one)
    except InputError:
        if is_line and opener is None:
            return ()  # the words of a text, whatever has their name here
        raise
    if os.path.isfile(one):  # and not the path's own, which raises for a text that is too long for a name
        return (Sample(one, one),)
    if opener is not None and os.path.isdir(one):
        return tuple(opener(one, 1).samples)
    if os.path.lexists(one):
        raise InputError(
            f"{one}: cannot go to a board ({_seen(one)}); give a file, or a folder if the package takes it"
        )
    return ()


def _seen(path: str) -> str:
    try:
        os.stat(path)
    except OSError as e:
        return reason(e)
    return "a folder, and the package takes none" if os.path.isdir(path) else "no file, but a pipe or device"


def _suffix(sample: Sample) -> str:
    suffix = os.path.splitext(str(sample.given))[1]
    return suffix if re.fullmatch(SUFFIX, suffix) else ""


def _check_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise InputError(f"{line(text)}: is not UTF-8, as what goes to a board must be; write it so") from e


def _ended(words: Sequence[str]) -> Sequence[str]:
    """``words`` as the end of a command line, whatever they begin with."""
    return ["--", *words] if words else []


def _put_lines(board: RemoteBoard, lines: Sequence[str]) -> str:
    """Where ``lines`` are on the board, as a file for ``--file``."""
    with Scratch("dlx-deploy-work") as folder:
        path = folder / "inputs.txt"
        text = "".join(f"{one}\n" for one in lines)
        path.write_bytes(text.encode("utf-8-sig"))  # with a mark of its own: one in the first line is the text's
        return board.put(path)
