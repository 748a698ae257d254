"""The packages that a server serves, each by its name and version, and what the protocol says of them."""

from __future__ import annotations

import functools
import threading
import time
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Optional, Protocol, Sequence

from ..errors import InputError
from ..predictor import Predictor
from ..tasks.arrays import BLOCK_BYTES, Arrays, Tensor, block_rows
from ..watching.watch import Watch
from ..words import line, shortened
from .messages import Refused
from .stream import Room
from .tensors import datatype_of

__all__ = ["Models", "Queue", "Served"]

BLOCK = 64  # samples that are run at a time at most, as predict does
READERS = 4  # image files that are decoded at a time: each may become hundreds of megabytes


class Queue(Protocol):
    """What stands between callers and a model, as ``MicroBatcher``."""

    @property
    def capacity(self) -> int:
        """How many samples may wait, and be in one call, at most."""

    def submit(self, feeds: Arrays, timeout_s: Optional[float] = None) -> Arrays:
        """The model's outputs for ``feeds``.

        Raises:
            Busy: too many wait, or no answer came within ``timeout_s``. PackageError: as ``Predictor.run``.
        """


@dataclass(frozen=True)
class Served:
    """A package that is served: ``watch`` counts what is asked of it, ``queue`` runs the model.

    ``reading`` is held while a sample is decoded. ``clock`` gives seconds, by which a request's time is over.
    ``memory`` is what samples take while they are answered.
    """

    watch: Watch
    queue: Queue
    reading: threading.Semaphore = field(default_factory=lambda: threading.BoundedSemaphore(READERS))
    clock: Callable[[], float] = time.monotonic
    memory: Room = field(default_factory=lambda: Room(2 * BLOCK_BYTES))

    @property
    def predictor(self) -> Predictor:
        """What reads and decodes."""
        return self.watch.predictor

    @property
    def name(self) -> str:
        """The package's."""
        return self.predictor.package.name

    @property
    def version(self) -> str:
        """The package's."""
        return self.predictor.package.version

    @functools.cached_property
    def inputs(self) -> Dict[str, Tensor]:
        """The model's inputs by name."""
        return self.predictor.package.inputs

    @functools.cached_property
    def outputs(self) -> Dict[str, Tensor]:
        """The model's outputs by name."""
        return self.predictor.package.outputs

    @functools.cached_property
    def block(self) -> int:
        """How many samples are run at a time at most, of a request that has many."""
        return block_rows((*self.inputs.values(), *self.outputs.values()), min(BLOCK, self.queue.capacity))

    def metadata(self, versions: Sequence[str]) -> Dict[str, object]:
        """What the protocol calls model metadata; ``parameters`` say what it has no field for."""
        package, inputs = self.predictor.package, self.predictor.package.task.inputs
        return {
            "name": self.name,
            "versions": list(versions),
            "platform": f"dlx-deploy_{self.predictor.backend.name}",
            "inputs": [self._tensor(tensor) for tensor in inputs.tensors],
            "outputs": [self._tensor(tensor) for tensor in package.task.outputs.tensors],
            "parameters": {
                "version": self.version,
                "task": package.task.name,
                "target": package.target,
                "digest": package.digest,
                "samples": inputs.noun,
                "media": str(getattr(inputs, "media", "")),
            },
        }

    def _tensor(self, tensor: Tensor) -> Dict[str, object]:
        sizes = [n if n is not None else -1 for n in tensor.sizes]
        batch = self.predictor.package.batch
        return {"name": tensor.name, "datatype": datatype_of(tensor.dtype), "shape": [batch or -1, *sizes]}


class Models:
    """The served packages by name and version.

    Raises:
        InputError: two have the same name and version.
    """

    def __init__(self, served: Sequence[Served]) -> None:
        self._served: Dict[str, Dict[str, Served]] = {}
        for one in served:
            versions = self._served.setdefault(one.name, {})
            if one.version in versions:
                raise InputError(
                    f"two packages are called {line(one.name)} {line(one.version)}; a request could not say which is "
                    "meant: serve each by a server of its own, or give one another version"
                )
            versions[one.version] = one

    def find(self, name: str, version: Optional[str] = None) -> Served:
        """The one that is meant; without a version the only one there is.

        Raises:
            Refused: 404 it is not served, 400 there are several versions and none is named.
        """
        versions = self._served.get(name)
        if versions is None:
            raise Refused(404, f"model {shortened(name)} is not served here; v2/repository/index lists those that are")
        if version is None:
            if len(versions) > 1:
                known = ", ".join(versions)
                raise Refused(400, f"model {name} is served in versions {known}; say which: …/versions/VERSION")
            return next(iter(versions.values()))
        if version not in versions:
            known = ", ".join(versions)
            raise Refused(404, f"model {name} is not served in version {shortened(version)}; there are {known}")
        return versions[version]

    def versions(self, name: str) -> List[str]:
        """Those that are served of one name."""
        return list(self._served[name])

    def all(self) -> List[Served]:
        """Every one, in the order in which they were given."""
        return [one for versions in self._served.values() for one in versions.values()]
