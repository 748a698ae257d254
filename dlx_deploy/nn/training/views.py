"""In how many ways augmentation shows a stored image to a network, where these can be counted. Without torch."""

from __future__ import annotations

import msgspec

__all__ = ["Views"]


class Views(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shifts by up to ``shift_px`` on both axes and, with ``flip``, each of them mirrored as well.

    A view has a number: ``((dy + shift_px) * (2 * shift_px + 1) + dx + shift_px) * (1 + flip) + mirrored``.
    """

    shift_px: int = 0
    flip: bool = False

    @property
    def count(self) -> int:
        """How many there are; 1: an image is always seen as it is stored."""
        return (2 * self.shift_px + 1) ** 2 * (1 + self.flip)
