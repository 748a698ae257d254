"""A package on a board and its signature, judged by the sender's own code and keys: none of the package is run."""

import os
import tempfile
from importlib import import_module
from typing import Any, Dict

__all__ = ["main"]


def main(argument: Dict[str, Any]) -> Dict[str, Any]:
    """Who signed ``package``, by ``signature`` and what is ``trusted`` (PEM by the name of a ``Trust``'s field), or the
    ``fault``.

    The verifier came along, as the package ``dlx_trusted``.
    """
    errors, trust = import_module("dlx_trusted.errors"), import_module("dlx_trusted.package.trust")
    with tempfile.TemporaryDirectory() as folder:
        named = {name: written(os.path.join(folder, name), pem) for name, pem in argument["trusted"].items()}
        try:
            with open(argument["package"], "rb") as stream:
                data = stream.read()
            asked = trust.Trust(signature=argument["signature"], **named)
            return {"by": asked.verify(data, argument["package"]).by}
        except errors.RuntimeFault as e:
            return {"fault": {"kind": type(e).__name__, "said": str(e), "exit_code": e.exit_code}}


def written(path: str, text: str) -> str:
    """The file that holds ``text`` now."""
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
    return path
