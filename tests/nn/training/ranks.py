"""Processes that train together, for the tests of distributed training: ``python ranks.py`` starts teams as it is told.

Each line on stdin is a job, ``[processes, folder, options]``; the answer on stdout is the list of their exit codes. The
ranks are forked from one process that has imported torch and computed nothing: the import takes longer than they do.
Rank i's stderr is ``folder/rank-i.err``.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

import numpy as np
from safetensors.torch import save_file
from torch import distributed, nn
from torch.distributed import fsdp  # noqa: F401  # imported once, for every rank

from dlx_deploy.config import Teacher
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.training.batches import ImageFeed, TrainData
from dlx_deploy.nn.training.classes import TOP1, supervised
from dlx_deploy.nn.training.compute import seed_all, set_threads
from dlx_deploy.nn.training.hooks import Hooks
from dlx_deploy.nn.training.inference import predict_logits
from dlx_deploy.nn.training.learner import Learner
from dlx_deploy.nn.training.loop import RunContext, train
from dlx_deploy.nn.training.transfer import Transfer


def data() -> TrainData:
    """70 images of three classes: a number that two processes cannot share evenly in every batch."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    images = (rng.integers(0, 120, (90, 8, 8, 1)) + labels[:, None, None, None] * 60).astype(np.uint8)
    return TrainData(images[:70], labels[:70], images[70:], labels[70:], ImageFeed([0.4], [0.3]), 3)


def network() -> nn.Module:
    seed_all(0)
    arguments = {"patch": 4, "depth": 2, "width": 16, "heads": 2}
    return build_model("vit", arguments, 3, ImageInput(1, 8, 8))


def main(rank: int, processes: int, folder: Path, options: dict[str, object]) -> None:
    set_threads(1)
    sharded = bool(options.pop("sharded", False))
    stop = int(str(options.pop("stop", 0)))
    transfer = Transfer(tuple(options.pop("unfreeze", ())))  # type: ignore[arg-type]
    settings = Teacher(**{"epochs": 3, "batch_size": 16, "learning_rate": 0.02, "accumulate": 2, **options})  # type: ignore[arg-type]
    model, mine = network(), data()

    def progress(done: float, total: float, text: str = "") -> None:
        if stop and done == stop:
            os._exit(17)

    context = RunContext(folder / "checkpoints", 3, progress, transfer, sharded=sharded)
    report = train(model, mine, settings, supervised(0.1), context, Hooks(TOP1))
    if rank == 0:
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "weights.safetensors")
        answers = {"losses": report.losses, "scores": report.scores, "resumed": report.resumed_from}
        (folder / "report.json").write_text(json.dumps(answers))
    if sharded and rank == 0 and options.get("show", True):
        np.save(folder / "logits.npy", predict_logits(model, mine.validation_inputs, mine.feed))


def sizes(folder: Path, rank: int) -> None:
    """How much of a sharded network this process holds, and its outputs while sharded."""
    from dlx_deploy.nn.training.compute import new_accelerator

    set_threads(1)
    model, mine = network(), data()
    whole = sum(p.numel() for p in model.parameters())
    settings = Teacher(epochs=1, batch_size=16)
    learner = Learner(model, settings, new_accelerator(settings), Transfer(), True)
    here = sum(p.to_local().numel() for p in learner.judged().parameters())  # type: ignore[attr-defined]
    logits = predict_logits(learner.judged(), mine.validation_inputs, mine.feed)
    np.savez(folder / f"sizes-{rank}.npz", whole=whole, here=here, logits=logits)


def rank_of(rank: int, processes: int, folder: Path, options: dict[str, object]) -> None:
    """One process of a team."""
    if processes > 1:
        environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        os.environ.update({k: str(v) for k, v in environment.items()})
        method = f"file://{folder}/meeting"
        distributed.init_process_group("gloo", init_method=method, rank=rank, world_size=processes)
    if options.pop("sizes", False):
        sizes(folder, rank)
    else:
        main(rank, processes, folder, options)
    if processes > 1:
        distributed.destroy_process_group()


def fork(rank: int, processes: int, folder: Path, options: dict[str, object]) -> int:
    """The process number of a new rank."""
    if pid := os.fork():
        return pid
    with (folder / f"rank-{rank}.err").open("wb") as errors:
        os.dup2(errors.fileno(), 2)
        os.dup2(errors.fileno(), 1)
    try:
        rank_of(rank, processes, folder, options)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    set_threads(1)
    for line in sys.stdin:
        count, place, given = json.loads(line)
        team = [fork(rank, count, Path(place), dict(given)) for rank in range(count)]
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in team]), flush=True)
