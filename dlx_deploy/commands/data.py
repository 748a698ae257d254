"""What a data set is like: the command to run first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlx_deploy.commands.options import ConfigOption, JsonOption, SetOption, check_page, print_view, say, write_page

if TYPE_CHECKING:
    from dlx_deploy.config import Config

__all__ = ["data"]


def data(
    config: ConfigOption = None,
    path: Annotated[
        Path | None,
        typer.Option("--data", help="The folder, list or table to look at; without --config by itself."),
    ] = None,
    overrides: SetOption = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page there with pictures of each class.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what the data are like, and what a build would do with them: counts, odd files, copies across splits."""
    from dlx_deploy.report.contact_sheet import contact_sheet
    from dlx_deploy.report.datasets import SurveyView
    from dlx_deploy.report.screen import showing
    from dlx_deploy.tasks import survey

    if html is not None:
        check_page(html)
    meant = _meant(config, path, overrides or [])
    with showing("data") as progress:
        surveyed = survey(meant.data, meant.seed, progress, meant.gate)
        page = contact_sheet(surveyed, progress) if html is not None else ""
    if html is not None:
        write_page(html, page)
    view = SurveyView(surveyed.survey)
    print_view(view, as_json)
    if view.failure:
        raise view.failure


def _meant(config: Path | None, path: Path | None, overrides: list[str]) -> Config:
    """The configuration whose ``[data]`` is looked at; of ``path`` alone what its kind has by default."""
    from dlx_deploy.building import find_config
    from dlx_deploy.config import load_config
    from dlx_deploy.config.template import toml_value
    from dlx_deploy.nn.data.kinds import has_training, kind_of

    if path is None:
        return find_config(config, overrides)
    given = [f"data.kind={toml_value(kind_of(path))}", f"data.path={toml_value(str(path))}"]
    loaded = load_config(config, [*given, *overrides])
    if config is None and not has_training(loaded.data):
        say(f"{path}: nothing to train on, so it is looked at as what a finished network is judged by")
        return load_config(None, [*given, "data.use='evaluation'", *overrides])
    return loaded
