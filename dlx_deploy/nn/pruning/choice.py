"""Which channels go: the mildest plan that removes enough and that the oracle has no objection to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dlx_deploy.nn.pruning.groups import Group, Network, Plan
from dlx_deploy.nn.pruning.oracle import Oracle
from dlx_deploy.nn.pruning.order import Goal
from dlx_deploy.nn.pruning.search import TOLERANCE, Part, fewest, mildest

__all__ = ["Search", "remedy"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Search:
    """Looks for plans for ``network``, which costs ``before``: ``cost`` says what it costs under a plan.

    ``alike``: groups of the same structure are ranked together (Fang et al. 2024, arXiv 2407.04616), not one by one.
    ``dropped`` collects the groups that the oracle objects to, and why. Every group first loses one step, so that
    what is planned afterwards, or said to be possible, seldom has to be taken back. ``near`` as of ``mildest``.
    """

    network: Network
    oracle: Oracle
    before: float
    cost: Callable[[Plan], float]
    near: float = TOLERANCE
    alike: bool = False
    dropped: dict[str, str] = field(default_factory=dict)

    def plan(self, keep_trunk: bool, share: float) -> Plan:
        """The mildest plan that takes ``share`` (0..1) of the cost, or else as much as can be."""
        self._try_each(keep_trunk)
        while True:
            groups = self._groups(keep_trunk)
            parts = self._parts(groups)

            def left(kept: Sequence[int], groups: Sequence[Group] = groups) -> float:
                return self.cost(self._plan(groups, kept))

            plan = self._plan(groups, mildest(parts, left, self.before, share, self.near))
            if self._agreed(plan):
                return plan

    def reach(self, keep_trunk: bool) -> float:
        """The share of the cost that can be removed at most, 0..1."""
        self._try_each(keep_trunk)
        while True:
            groups = self._groups(keep_trunk)
            plan = self._plan(groups, fewest(self._parts(groups)))
            if self._agreed(plan):
                return self.share(plan)

    def share(self, plan: Plan) -> float:
        """The share of the cost that ``plan`` removes, 0..1."""
        return 1 - self.cost(plan) / self.before

    def _try_each(self, keep_trunk: bool) -> None:
        groups = self._groups(keep_trunk)
        parts = self._parts(groups)
        self._agreed(self._plan(groups, [(part.counts() or [len(part.strength)])[0] for part in parts]))

    def _agreed(self, plan: Plan) -> bool:
        """Whether there is no objection to ``plan``; the groups to blame are dropped."""
        blamed = self.oracle.offenders(plan)
        for name, objection in blamed.items():
            log.info("the channels of %r stay: without some of them %s", name, objection)
        self.dropped.update(blamed)
        return not blamed

    def _groups(self, keep_trunk: bool) -> list[Group]:
        free = [g for g in self.network.groups if g.name not in self.dropped]
        return [g for g in free if not (keep_trunk and g.trunk)]

    def _parts(self, groups: Sequence[Group]) -> list[Part]:
        return [Part(self.network.strength(g), g.step, g.structure if self.alike else None) for g in groups]

    def _plan(self, groups: Sequence[Group], kept: Sequence[int]) -> Plan:
        plan = {}
        for group, count in zip(groups, kept, strict=True):
            order = np.argsort(self.network.strength(group), kind="stable")
            if count < len(order):
                plan[group.name] = np.sort(group.classes[order[: len(order) - count]])
        return plan


def remedy(goal: Goal, now: tuple[int, bool], reach: Mapping[tuple[int, bool], float], before: float) -> str:
    """What would help where ``now``, a ``round_to`` and a ``keep_trunk``, removes less than ``goal`` asks.

    ``reach`` says what share of ``before`` it and others can remove at most. Advised is the first that suffices, else
    the one that removes most; nothing that would not help.
    """
    advice = [nearest] if (nearest := goal.nearest(reach[now], before)) else []
    enough = [option for option, there in reach.items() if there >= goal.share(before) - goal.near]
    best = (enough or [max(reach, key=lambda option: reach[option])])[0]
    if reach[best] > reach[now] + 0.001:
        changes = [f"prune.round_to = {best[0]}"] if best[0] != now[0] else []
        changes += [f"prune.keep_trunk = {str(best[1]).lower()}"] if best[1] != now[1] else []
        advice.append(f"set {' and '.join(changes)} ({goal.most(reach[best], before)})")
    return ", or ".join(advice) or "set prune.enabled = false to ship the network as it is"
