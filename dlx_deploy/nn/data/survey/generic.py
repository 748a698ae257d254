"""A survey of samples that are no files of their own: built-in data, or another package's."""

from __future__ import annotations

from dlx_deploy.config import Data
from dlx_deploy.nn.data.prepare import DataSource
from dlx_deploy.nn.data.survey.balance import balance
from dlx_deploy.nn.data.survey.drawn import draw
from dlx_deploy.nn.data.survey.findings import Survey, Surveyed, in_order

__all__ = ["survey_source"]


def survey_source(source: DataSource, config: Data, seed: int) -> Surveyed:
    """How many samples each class has in each split."""
    drawn = draw(config, source, seed)
    findings = [drawn.refusal] if drawn.refusal else []
    findings += balance(drawn.splits, source.classes, source.noun)
    survey = Survey(
        kind=config.kind,
        path=config.path,
        root="",
        noun=source.noun,
        classes=source.classes,
        splits=drawn.splits,
        findings=in_order(findings),
    )
    return Surveyed(survey)
