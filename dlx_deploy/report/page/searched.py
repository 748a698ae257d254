"""The search that a configuration was chosen by, as a report has it: the trials out of the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from dlx_deploy.config.gate import Search
from dlx_deploy.config.strict import Table, parse_toml
from dlx_deploy.config.template import toml_value
from dlx_deploy.pipeline.manifest import Manifest
from dlx_deploy.report.page.facts import Searched
from dlx_deploy.report.studies import StudyTrial, read_study

__all__ = ["searched_of"]


def searched_of(manifest: Manifest, store: Path) -> Searched | None:
    """The trials beside that which the configuration of a build is; ``None`` where no search chose it.

    Raises:
        StoreError: they are there and cannot be read.
    """
    whole = manifest.config if isinstance(manifest.config, dict) else {}
    try:
        asked = msgspec.convert(whole.get("search", {}), Search)
    except msgspec.ValidationError:  # another version of dlx-deploy wrote it
        return None
    if not asked.study:
        return None
    trials = read_study(store, asked.study)
    own = next((one for one in trials.trials if one.number == asked.trial), None) if trials else None
    changed = tuple(_changed(whole, own)) if own else ()
    return Searched(study=asked.study, trial=asked.trial, trials=trials, changed=changed)


def _changed(config: Table, trial: StudyTrial) -> Iterator[str]:
    """Where somebody set another value since."""
    for key, text in trial.values.items():
        value: object = config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value != parse_toml(text):
            now = "not set" if value is None else toml_value(value)
            yield f"{key} is {now}, and was {text} in the trial"
