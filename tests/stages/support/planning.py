"""What a plan, and the start of a build, say of a configuration."""

from __future__ import annotations

from pathlib import Path

from dlx_deploy.building import build_for, load_work
from dlx_deploy.config import load_config
from dlx_deploy.pipeline.check import check_build, rehearse_build
from dlx_deploy.pipeline.plan import Build
from dlx_deploy.pipeline.store import Store
from dlx_deploy.targets import load_target

__all__ = ["NET", "planned", "rehearsed", "texts"]

NET = """
import torch
class Net(torch.nn.Module):
    def __init__(self, num_classes): super().__init__(); self.head = torch.nn.Linear(64, num_classes)
    def forward(self, x): return self.head(x.flatten(1))
def make_net(num_classes): return Net(num_classes)
def other(num_classes): return torch.nn.Conv2d(1, num_classes, 3)
def wants(num_classes, depth): return Net(num_classes)
class Mixed(Net):
    def forward(self, x): return super().forward(x - x.mean(0, keepdim=True))
def mixed(num_classes): return Mixed(num_classes)
class Counting(Net):
    def forward(self, x): return self.head(x.reshape(len(x), -1))
def counting(num_classes): return Counting(num_classes)
"""


def planned(tmp_path: Path, *overrides: str, target: str = "jetson") -> Build:
    return load_work(None, [target], overrides, tmp_path / ".dlx").builds[0]


def texts(folder: Path) -> list[str]:
    folder.mkdir()
    (folder / "train.csv").write_text("text,label\n" + "".join(f"word {i},{'ab'[i % 2]}\n" for i in range(40)))
    return ["data.kind=text", f"data.path={folder}", "teacher.model=transformer", "distill.model=transformer"]


def rehearsed(tmp_path: Path, *overrides: str) -> None:
    build = build_for(load_config(None, overrides), load_target("jetson").profile)
    check_build(build)
    rehearse_build(build, Store(tmp_path / ".dlx"))
