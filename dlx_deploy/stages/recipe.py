"""The recipe: which stages a configuration asks for, in order, and what each is given."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from dlx_deploy.config import Config, Data, Distill, Prune, Teacher
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.plan import Build
from dlx_deploy.pipeline.stage import Metrics, Output, Provenance, Source, Stage, Step, Tree
from dlx_deploy.stages.compile import CompileParams
from dlx_deploy.stages.package import PackageParams
from dlx_deploy.stages.support.checks import check_batches
from dlx_deploy.stages.support.engine import builder_for
from dlx_deploy.stages.support.notes import compile_notes, data_notes, teacher_notes, verify_notes
from dlx_deploy.stages.support.training import NoParams
from dlx_deploy.stages.verify import judge
from dlx_deploy.targets import Profile, is_this_host, read_host

__all__ = ["STAGES", "build_for", "load_stage", "steps_for"]

STAGES = {
    name: f"dlx_deploy.stages.{name}:STAGE"
    for name in ("data", "teacher", "logits", "distill", "prune", "export", "quantize", "compile", "verify", "package")
}
"""Stage name → ``module:NAME``; a stage's module imports nothing heavy."""


_LIBRARIES = {"timm": "timm", "hf": "transformers"}
"""What a network's name begins with → the distribution that makes it."""
_NOTES = {"data": data_notes, "teacher": teacher_notes, "compile": compile_notes, "verify": verify_notes}


def load_stage(name: str) -> Stage[Any]:
    """The built-in stage ``name``."""
    module, _, attribute = STAGES[name].partition(":")
    stage: Stage[Any] = getattr(importlib.import_module(module), attribute)
    return stage


def build_for(config: Config, profile: Profile) -> Build:
    """Everything that a build of ``config`` for one target needs."""
    return Build(
        target_name=profile.name,
        target=profile,
        steps=steps_for(config, profile),
        config=config,
        host=msgspec.to_builtins(read_host()),
        target_is_host=is_this_host(profile),
        threads=config.threads,
    )


def steps_for(config: Config, profile: Profile) -> list[Step]:
    """The steps of ``config`` for one target; steps that do not look at the target are shared by all of them."""
    recipe = _Recipe(config, profile)
    data = Output(recipe.add("data", _data_params(config), _files(config)), "data")
    teacher = student = recipe.network("teacher", config.teacher, data)
    models = {"teacher": recipe.export("export-teacher", teacher, data)}
    if config.distill.enabled:
        student = recipe.network("distill", config.distill, data, recipe.taught(config.distill, teacher, data))
        models["student"] = recipe.export("export-student", student, data)
    if config.prune.enabled:
        inputs = {"data": data, "model": Output(student, "model"), **recipe.taught(config.prune, teacher, data)}
        models["pruned"] = recipe.export("export-pruned", recipe.add("prune", config.prune, inputs), data)
    smallest = next(reversed(models.values()))
    quantized = recipe.add("quantize", config.quantize, {"onnx": smallest, "data": data})
    layers = Output(quantized, "layers.json")
    candidates = {"onnx": smallest, "quantized": Output(quantized, "model.onnx"), "layers": layers, "data": data}
    compiled = recipe.add("compile", _compile_params(config, profile), candidates)
    shipped = Output(compiled, "model.onnx")
    models["quantized"] = candidates["quantized"]
    verified = recipe.add("verify", config.verify, {**models, "shipped": shipped, "data": data})
    contents: dict[str, Source] = {
        "model": shipped,
        "recipe": Output(compiled, "recipe.json"),
        "engine": Output(compiled, "engine"),
        "layers": layers,
        "accuracy": Output(verified, "accuracy.json"),
        "teacher": Output(verified, "teacher.npy"),
        "data": data,
        "provenance": Provenance(),
    }
    recipe.add("package", _package_params(config), contents)
    return recipe.steps


class _Recipe:
    """Collects steps; each method gives back the name, or the output, of the step it added."""

    def __init__(self, config: Config, profile: Profile) -> None:
        self._config, self._profile = config, profile
        self.steps: list[Step] = []
        self._made_by: dict[str, str] = {}

    def add(
        self, stage: str, params: msgspec.Struct, inputs: Mapping[str, Source], name: str = "", library: str = ""
    ) -> str:
        """``library``: whose network this step makes; it counts as a tool here and wherever that network is rebuilt."""
        record = load_stage(stage)
        makers = {
            key: self._made_by[source.step]
            for key, source in inputs.items()
            if isinstance(source, Output) and source.name == "model"
        }
        libraries = sorted({library, *makers.values()} - {""})
        if libraries:
            record = dataclasses.replace(record, tools=(*record.tools, *libraries))
        budgets, seed = self._config.gate, self._config.seed
        judges: dict[str, Callable[[Mapping[str, Path], Metrics], Sequence[GateResult]]] = {
            "data": functools.partial(check_batches, self._config),
            "verify": functools.partial(judge, budgets),
        }
        notes = functools.partial(_NOTES[stage], self._config) if stage in _NOTES else None
        self._made_by[name or stage] = library or makers.get("model", "")
        self.steps.append(Step(name or stage, record, params, inputs, seed, judges.get(stage), notes))
        return self.steps[-1].name

    def taught(self, section: Distill | Prune, teacher: str, data: Output) -> dict[str, Source]:
        """What a student learns from: the teacher, or its answers where it would always give the same."""
        if section.epochs == 0 or (section.augments and not self._config.data.is_text):
            return {"teacher": Output(teacher, "model")}
        if all(step.name != "teacher-logits" for step in self.steps):
            self.add("logits", NoParams(), {"data": data, "teacher": Output(teacher, "model")}, "teacher-logits")
        return {"logits": Output("teacher-logits", "logits.npy")}

    def network(
        self, stage: str, section: Teacher | Distill, data: Output, more: Mapping[str, Source] | None = None
    ) -> str:
        """A step whose section names a model and perhaps a checkpoint: files become inputs, hashed by content."""
        inputs: dict[str, Source] = {"data": data, **(more or {})}
        path, is_file, function = section.model.rpartition(".py:")
        if is_file:
            inputs["source"] = Path(f"{path}.py")
            section = replace(section, model=f"model.py:{function}")
        folder = Path(section.model.removeprefix("hf:"))
        if section.model.startswith("hf:") and folder.is_dir():
            inputs["source"] = Tree(folder, _hf_files)
            section = replace(section, model="hf:source")
        if isinstance(section, Teacher) and section.checkpoint:
            inputs["checkpoint"] = Path(section.checkpoint)
            beside = Path(section.checkpoint).with_name("config.json")
            if beside.is_file():  # Hugging Face and timm name the outputs there
                inputs["names"] = beside
            section = replace(section, checkpoint=Path(section.checkpoint).suffix)
        return self.add(stage, section, inputs, library=_LIBRARIES.get(section.model.partition(":")[0], ""))

    def export(self, name: str, model: str, data: Output) -> Output:
        inputs = {"model": Output(model, "model"), "data": data}
        params = self._config.export
        if self._config.data.is_text and params.length == "auto":
            # An engine is built for one length; ONNX Runtime computes no more than a text needs.
            params = replace(params, length="fixed" if self._profile.builds_engines else "dynamic")
        return Output(self.add("export", params, inputs, name), "model.onnx")


def _hf_files(folder: Path) -> list[str]:
    """What of a Hugging Face model's folder counts: its configuration and its weights."""
    return sorted(p.name for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".bin"))


def _compile_params(config: Config, profile: Profile) -> CompileParams:
    return CompileParams(
        **msgspec.structs.asdict(config.compile),
        precision=config.quantize.precision,
        threads=config.verify.threads,
        batch=config.export.batch,
        builder=builder_for(config, profile),
    )


def _package_params(config: Config) -> PackageParams:
    return PackageParams(
        **msgspec.structs.asdict(config.package), name=config.name, version=config.version, gate=config.gate
    )


def _data_params(config: Config) -> Data:
    """The section without what is bound as a file."""
    given = config.data.tokenizer.endswith(".json")
    return replace(config.data, path="", tokenizer="given.json" if given else config.data.tokenizer)


def _files(config: Config) -> dict[str, Source]:
    """The user's images or texts, and a tokenizer if one is given."""
    files: dict[str, Source] = {}
    if config.data.is_text and config.data.tokenizer.endswith(".json"):
        files["tokenizer"] = Path(config.data.tokenizer)
    if config.data.kind in ("digits", "docstrings"):
        return files
    wanted = {"imagefolder": "that holds train/CLASS/*.jpg", "text": "that holds train.csv or train.jsonl"}
    if not config.data.path:
        kind = config.data.kind
        raise ConfigError(f"data.path is ''; data.kind {kind!r} needs the folder {wanted[kind]}")
    from dlx_deploy.nn.data.listing import image_names, text_names

    path = Path(config.data.path)
    if config.data.kind == "imagefolder":
        return {"images": Tree(path, image_names)}
    return {**files, "texts": path if path.is_file() else Tree(path, text_names)}
