"""Which device a target is, if it is one that can be reached, and what of it is here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec

from dlx_deploy.devices.device import Device
from dlx_deploy.devices.local import ThisMachine
from dlx_deploy.targets import Profile, is_this_host

__all__ = ["device_for", "has_gpu_of", "processor_of", "reaching"]

_reached: dict[str, Device] = {}
"""The boards that this process has been told of, by the name of the target that each is."""


def device_for(profile: Profile) -> Device | None:
    """The device that ``profile`` describes, so that a time measured there is the target's own.

    ``None`` where none can be reached: then a latency is estimated, and labelled so. So it is of a GPU target, whose
    models only a package's own engine can be timed by.
    """
    if profile.name in _reached:
        return _reached[profile.name] if profile.kind == "cpu" else None
    return ThisMachine() if is_this_host(profile) else None


@contextlib.contextmanager
def reaching(devices: Mapping[str, Device]) -> Iterator[None]:
    """Inside, the targets of these names are these devices, whatever this machine is."""
    _reached.update(devices)
    try:
        yield
    finally:
        for name in devices:
            _reached.pop(name, None)


def processor_of(profile: Profile) -> str:
    """Whose energy an inference there is: ``cpu`` or ``gpu``."""
    return "cpu" if profile.kind == "cpu" else "gpu"


def has_gpu_of(profile: Profile) -> bool:
    """Whether the GPU of ``profile`` is in this machine, so that the TensorRT here, if there is one, builds for it."""
    if find_spec("tensorrt") is None:
        return False
    from dlx_deploy.runtime.engine.sidecar import this_machine
    from dlx_deploy.runtime.errors import RuntimeFault

    try:
        here = this_machine(None, "tensorrt", "")
    except RuntimeFault:
        return False
    return (here.compute_capability, here.arch) == (profile.compute_capability, profile.arch)
