"""A page as HTML: one file that needs nothing else, runs nothing, and may load nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlx_deploy.errors import EnvironmentMissing
from dlx_deploy.extras import install_command
from dlx_deploy.report.page.parts import Page
from dlx_deploy.runtime.words import line

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render"]


def render(page: Page) -> str:
    """The page's HTML. Whatever is not ours in it is escaped, control characters and writing direction too.

    Raises:
        EnvironmentMissing: what draws pages is not installed.
    """
    return _environment().get_template("page.html").render(page=page)


def _environment() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as e:
        raise EnvironmentMissing(
            f"the HTML report needs jinja2, not installed here; install with: {install_command('report')}"
        ) from e
    environment = Environment(
        loader=PackageLoader("dlx_deploy.report.page", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else line(str(value)),
    )
    environment.filters["drawn"] = Markup  # of our own plots alone, whose texts are escaped already
    return environment
