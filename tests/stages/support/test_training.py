"""How many threads the stages that compute with torch use: measured inside each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dlx_deploy.config import Data, Distill, Export, Prune, Teacher
from dlx_deploy.nn.training.views import Views
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.stages.registry import load_stage
from dlx_deploy.tasks import prepare

CORES = 3
PARAMS = {
    "teacher": Teacher(epochs=0),
    "distill": Distill(epochs=0),
    "prune": Prune(epochs=0),
    "logits": Views(),
    "export": Export(),
}


class Seen(Exception):
    """Carries the number of threads out of a stage that got so far."""


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same few samples as small images, larger ones and texts."""
    from PIL import Image

    root = tmp_path_factory.mktemp("threads")
    for i in range(24):
        path = root / "pictures" / "train" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 10 * i).save(path)
    rows = "".join(f"{'cat' if i % 2 else 'oak'} {i},{i % 2}\n" for i in range(24))
    (root / "texts.csv").write_text(f"text,label\n{rows}")
    kinds = {
        "small": Data(kind="imagefolder", path=str(root / "pictures"), height=16),
        "large": Data(kind="imagefolder", path=str(root / "pictures"), height=17),
        "text": Data(kind="text", path=str(root / "texts.csv")),
    }
    for name, config in kinds.items():
        prepare(config, root / name, 0)
    return {name: root / name for name in kinds}


def threads_in(stage: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **job: Any) -> int:
    """The threads that torch has right after the stage set them."""
    import dlx_deploy.nn.weights.network as artifact
    import dlx_deploy.stages.support.training as training

    def stop(*_: Any, **__: Any) -> None:
        raise Seen(torch.get_num_threads())

    module = __import__(f"dlx_deploy.stages.{stage}", fromlist=["run"])
    monkeypatch.setattr("dlx_deploy.runtime.machine.available_cores", lambda: CORES)
    monkeypatch.setattr(artifact, "load_model", stop)
    for owner in (training, module):
        if hasattr(owner, "new_model"):
            monkeypatch.setattr(owner, "new_model", stop)
    before = torch.get_num_threads()
    inputs = {"data": data, "model": tmp_path, "teacher": tmp_path}
    try:
        with pytest.raises(Seen) as seen:
            load_stage(stage).run(Job(params=PARAMS.get(stage), inputs=inputs, out=tmp_path, **job))
    finally:
        torch.set_num_threads(before)
    return int(seen.value.args[0])


@pytest.mark.parametrize("stage", ["teacher", "distill", "prune", "logits", "export"])
@pytest.mark.parametrize(("kind", "expected"), [("small", 1), ("large", CORES), ("text", CORES)])
def test_only_small_images_are_computed_on_one_thread(
    stage: str,
    kind: str,
    expected: int,
    artifacts: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert threads_in(stage, artifacts[kind], tmp_path, monkeypatch) == expected


@pytest.mark.parametrize(("job", "expected"), [({"threads": 2}, 2), ({"processes": 3}, 1)])
def test_a_given_number_and_company_on_the_machine_count(
    job: dict[str, int],
    expected: int,
    artifacts: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert threads_in("teacher", artifacts["text"], tmp_path, monkeypatch, **job) == expected
