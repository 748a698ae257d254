"""A package on a board and its signature, judged by the sender's own code and keys: none of the package is run."""

import tempfile
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any, Dict, Iterator

__all__ = ["main"]


def main(argument: Dict[str, Any]) -> Dict[str, Any]:
    """Who signed ``package``, by ``signature`` and what is ``trusted`` (PEM by the name of a ``Trust``'s field), or the
    ``fault``.

    The verifier came along, as the package ``dlx_trusted``.
    """
    errors, trust = import_module("dlx_trusted.errors"), import_module("dlx_trusted.package.trust")
    with ExitStack() as stack:
        named = {name: stack.enter_context(written(pem)) for name, pem in argument["trusted"].items()}
        try:
            with open(argument["package"], "rb") as stream:
                data = stream.read()
            asked = trust.Trust(signature=argument["signature"], **named)
            return {"by": asked.verify(data, argument["package"]).by}
        except errors.RuntimeFault as e:
            return {"fault": {"kind": type(e).__name__, "said": str(e), "exit_code": e.exit_code}}


@contextmanager
def written(text: str) -> Iterator[str]:
    """Inside, the path of a file that holds ``text``; it has no name, so nothing is left of it whatever ends this."""
    with tempfile.TemporaryFile() as stream:
        stream.write(text.encode("utf-8"))
        stream.flush()
        yield "/dev/fd/%d" % stream.fileno()
