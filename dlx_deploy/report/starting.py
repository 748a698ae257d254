"""What ``dlx-deploy init`` saw, chose and why, as people look at it."""

from __future__ import annotations

import msgspec

from dlx_deploy.config.template import toml_value
from dlx_deploy.report.table import format_table
from dlx_deploy.runtime.views import lines_of
from dlx_deploy.start.choosing import Start

__all__ = ["StartView"]

_SHOWN = 5


class StartView(msgspec.Struct, frozen=True):
    """``file``: the configuration that was written."""

    file: str
    start: Start

    @property
    def data(self) -> dict[str, object]:
        """All of it."""
        return {"file": self.file, **msgspec.to_builtins(self.start)}

    @property
    def text(self) -> str:
        """What was seen, a table of what was chosen, and what to do next."""
        seen = self.start.seen
        counts = ", ".join(f"{count} in {split}" for split, count in seen.splits.items())
        named = ", ".join(seen.classes[:_SHOWN]) + (", …" if len(seen.classes) > _SHOWN else "")
        lines = [f"saw: {seen.path}: {seen.kind}, {counts}"]
        if seen.classes:
            sizes = f", {seen.smallest} to {seen.largest} in each for training" if seen.largest else ""
            lines.append(f"     {len(seen.classes)} classes ({named}){sizes}")
        if seen.height:
            spread = f"sides from {seen.least_side} to {seen.most_side}, {seen.channels} channels"
            lines.append(f"     {seen.looked_at} files looked at: {seen.height} x {seen.width} in the middle, {spread}")
        if seen.unreadable:
            lines.append(f"     {seen.unreadable} of them cannot be opened; see: dlx-deploy data --data {seen.path}")
        lines.append(f"     {self.start.machine.text}")
        rows = [[key, toml_value(value), self.start.reasons.get(key, "")] for key, value in self.start.values.items()]
        tail = [*(f"note: {note}" for note in self.start.notes), f"{self.file} written; build with:"]
        tail.append(f"  dlx-deploy build -c {self.file}")
        return "\n".join([lines_of(lines), format_table(["key", "value", "why"], rows), lines_of(tail)])
