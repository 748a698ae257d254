"""How to install an extra of dlx-deploy from where this copy came from.

The project is on no package index: whoever registered its name there would be installed in its stead, so no message
tells a user to install it by name.
"""

from __future__ import annotations

import json
from importlib import metadata
from urllib.parse import unquote, urlsplit

__all__ = ["install_command"]

DISTRIBUTION = "dlx-deploy"
IN_THE_REPOSITORY = "pip install '.[{extra}]' in dlx-deploy's repository"


def install_command(extra: str) -> str:
    """The command that installs ``extra``: from the folder, wheel or repository that pip recorded (PEP 610)."""
    try:
        recorded = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        recorded = None
    if recorded is None:
        return IN_THE_REPOSITORY.format(extra=extra)
    origin = json.loads(recorded)
    url = str(origin["url"])
    if "vcs_info" in origin:
        return f"pip install '{DISTRIBUTION}[{extra}] @ {origin['vcs_info']['vcs']}+{url}'"
    parts = urlsplit(url)
    if parts.scheme != "file":
        return f"pip install '{DISTRIBUTION}[{extra}] @ {url}'"
    editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
    return f"pip install {editable}'{unquote(parts.path)}[{extra}]'"
