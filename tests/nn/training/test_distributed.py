"""Two processes do what one does: the same curve, the same weights, the same outputs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

RANKS = Path(__file__).with_name("ranks.py")


class Teams:
    """Starts teams of processes, one after another, and waits for each."""

    def __init__(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, str(RANKS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, folder: Path, processes: int, **options: Any) -> list[int]:
        """The exit codes of the ranks; all must be 0 unless they were told to ``stop``."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "meeting").unlink(missing_ok=True)
        self.server.stdin.write(json.dumps([processes, str(folder), options]) + "\n")
        self.server.stdin.flush()
        codes: list[int] = json.loads(self.server.stdout.readline())
        if not options.get("stop"):
            assert codes == [0] * processes, [path.read_text() for path in sorted(folder.glob("rank-*.err"))]
        return codes


@pytest.fixture(scope="module")
def launch() -> Iterator[Teams]:
    teams = Teams()
    yield teams
    teams.server.communicate(timeout=60)


def results(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    return json.loads((folder / "report.json").read_text()), load_file(folder / "weights.safetensors")


@pytest.fixture(scope="module")
def alone(launch: Teams, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("alone")
    launch(folder, 1)
    return results(folder)


@pytest.mark.parametrize("sharded", [False, True], ids=["replicated", "sharded"])
def test_two_processes_give_the_curve_of_one(
    sharded: bool, alone: tuple[dict[str, Any], dict[str, np.ndarray]], launch: Teams, tmp_path: Path
) -> None:
    launch(tmp_path, 2, sharded=sharded)
    report, weights = results(tmp_path)
    assert report["losses"] == pytest.approx(alone[0]["losses"], rel=1e-4)
    assert report["scores"] == pytest.approx(alone[0]["scores"])
    assert weights.keys() == alone[1].keys()
    for name, value in weights.items():
        assert value == pytest.approx(alone[1][name], abs=2e-4), name


@pytest.mark.parametrize(
    "options", [{"sharded": True, "optimizer": "adamw"}, {"ema_decay": 0.5, "unfreeze": [1]}], ids=str
)
def test_two_killed_processes_go_on_to_the_same_bits(options: dict[str, Any], launch: Teams, tmp_path: Path) -> None:
    launch(tmp_path / "whole", 2, **options)
    assert 17 in launch(tmp_path / "broken", 2, **options, stop=2)
    launch(tmp_path / "broken", 2, **options)
    (whole, weights), (resumed, again) = results(tmp_path / "whole"), results(tmp_path / "broken")
    assert (whole["resumed"], resumed["resumed"]) == (0, 2)
    assert resumed["losses"] == whole["losses"]
    assert all(np.array_equal(again[name], value) for name, value in weights.items())


def test_a_sharded_network_is_shared_and_answers_as_the_whole_one(launch: Teams, tmp_path: Path) -> None:
    launch(tmp_path, 2, sizes=True)
    shards = [np.load(tmp_path / f"sizes-{rank}.npz") for rank in (0, 1)]
    whole = int(shards[0]["whole"])
    assert sum(int(f["here"]) for f in shards) == whole
    assert max(int(f["here"]) for f in shards) < 0.6 * whole
    sys.path.insert(0, str(RANKS.parent))
    try:
        import ranks  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    data = ranks.data()
    expected = ranks.predict_logits(ranks.network(), data.validation_inputs, data.feed)
    assert all(f["logits"] == pytest.approx(expected, abs=1e-5) for f in shards)
