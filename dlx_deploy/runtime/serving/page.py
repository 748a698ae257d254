"""The page at ``/``: one file that loads nothing, from nowhere, and may run nothing but its own script."""

from __future__ import annotations

import base64
import functools
import hashlib
import pkgutil
import re

from .messages import Response

__all__ = ["page_response"]

MEMBER = "page.html"
INLINE = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


@functools.lru_cache(maxsize=1)
def page_response() -> Response:
    """The page, with a policy that names its script and its style by their digests."""
    page = pkgutil.get_data(__package__ or "", MEMBER)
    assert page is not None
    allowed = {kind.decode("ascii"): _source(text) for kind, text in INLINE.findall(page)}
    policy = (
        f"default-src 'none'; script-src {allowed['script']}; style-src {allowed['style']}; img-src blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = (
        ("Content-Security-Policy", policy),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-store"),
    )
    return Response(200, (page,), "text/html; charset=utf-8", headers)


def _source(text: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode('ascii')}'"
