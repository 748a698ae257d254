"""sequence-classification: which of several classes a text is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlx_deploy.config import Data
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.stage import Source, Tree
from dlx_deploy.progress import Progress
from dlx_deploy.tasks.classes import Classes
from dlx_deploy.tasks.task import Task
from dlx_deploy.tasks.texts import Texts, text_header

if TYPE_CHECKING:
    from dlx_deploy.nn.data.dataset import Dataset
    from dlx_deploy.nn.data.prepare import DataSource
    from dlx_deploy.nn.data.survey.findings import Surveyed
    from dlx_deploy.runtime.tasks.task import Task as DeviceTask

__all__ = ["TASK"]

DOCSTRINGS = "docstrings"


def _files(data: Data) -> dict[str, Source]:
    files: dict[str, Source] = {}
    if data.tokenizer.endswith(".json"):
        files["tokenizer"] = Path(data.tokenizer)
    if data.kind == DOCSTRINGS:
        return files
    if not data.path:
        raise ConfigError("data.path is ''; data.kind 'text' needs the folder that holds train.csv or train.jsonl")
    from dlx_deploy.nn.data.listing import text_names

    path = Path(data.path)
    return {**files, "texts": path if path.is_file() else Tree(path, text_names)}


def _source(data: Data, progress: Progress) -> DataSource:
    from dlx_deploy.nn.data.texts import text_source

    return text_source(data)


def _survey(data: Data, seed: int, progress: Progress) -> Surveyed:
    from dlx_deploy.nn.data.survey.texts import survey_texts

    return survey_texts(data, seed, progress)


def _classes(data: Data) -> int | None:
    """Only the texts themselves will say."""
    return None


def _device(data: Dataset, golden: Sequence[int], dims: Mapping[str, Sequence[int | None]]) -> DeviceTask:
    from dlx_deploy.nn.data.texts import texts_of, tokenizer_of
    from dlx_deploy.runtime.tasks.text_classification import text_classification
    from dlx_deploy.runtime.tasks.text_inputs import TOKENS, Tokens

    header, texts = text_header(data), texts_of(data, "test")
    tokens = Tokens(header.vocabulary, header.pad_id, header.max_length, header.truncate, dims[TOKENS][1])
    tokenizer = tokenizer_of(data).read_bytes()
    return text_classification(tokens, tokenizer, data.classes, [texts[i] for i in golden])


TASK = Task(
    name="sequence-classification",
    kinds={DOCSTRINGS: "docstrings of installed packages", "text": ""},
    inputs=Texts(),
    answers=Classes(),
    files=_files,
    source=_source,
    classes=_classes,
    device=_device,
    statement="Sequence classification. Input: texts; the package holds their tokenizer, padding is masked by the "
    "graph.",
    libraries={DOCSTRINGS: ("scikit-learn", "torch")},  # their paragraphs, and numpy's
    survey=_survey,
)
