"""Which device a target is, if it is one that can be reached."""

from __future__ import annotations

from dlx_deploy.devices.device import Device
from dlx_deploy.devices.local import ThisMachine
from dlx_deploy.targets import Profile, is_this_host

__all__ = ["device_for"]


def device_for(profile: Profile) -> Device | None:
    """The device that ``profile`` describes, so that a time measured there is the target's own.

    ``None`` where none can be reached: then a latency is estimated, and labelled so.
    """
    return ThisMachine() if is_this_host(profile) else None
