"""The command line of most starts, ``predict cat.png``, read without a parser, which takes long to import and make."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Optional, Sequence

if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Union

    Arguments = Union[Namespace, SimpleNamespace]

__all__ = ["plain_arguments"]


def plain_arguments(archive_path: Optional[str], argv: Sequence[str]) -> Optional[SimpleNamespace]:
    """What the parser makes of ``predict INPUT …`` inside a package, as long as there is no option; else ``None``."""
    if archive_path is None or "predict" not in argv[:1] or any(text.startswith("-") for text in argv):
        return None
    return SimpleNamespace(
        command="predict",
        json=False,
        require_signature=False,
        public_key=None,
        certificates=None,
        signature=None,
        threads=0,
        backend=None,
        accept_hazards=False,
        no_build=False,
        cache=None,
        inputs=list(argv[1:]),
        file=None,
        camera=None,
        every=1,
        limit=None,
        batch=None,
        jsonl=False,
        drift=False,
        top=1,
        out=None,
    )
