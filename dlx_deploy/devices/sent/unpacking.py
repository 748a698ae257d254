"""Files that came as one archive, as files: a folder of them is there whole or not at all."""

import os
import zipfile
from typing import Any, Dict

__all__ = ["main"]


def main(argument: Dict[str, Any]) -> Dict[str, Any]:
    """Whether the ``folder`` is there; if it is not, it is made of the ``archive``, where that is, which then goes."""
    folder, archive = argument["folder"], argument["archive"]
    if not os.path.isdir(folder) and os.path.isfile(archive):
        aside = "%s.%d" % (folder, os.getpid())
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(aside)
        os.rename(aside, folder)
        os.unlink(archive)
    return {"there": os.path.isdir(folder)}
