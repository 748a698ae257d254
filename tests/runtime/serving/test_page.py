from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

from dlx_deploy.runtime.serving.page import page_response
from dlx_deploy.runtime.sources import own_sources


def test_the_page_runs_its_own_script_and_nothing_else(ask: Any) -> None:
    status, headers, body = ask("GET", "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = dict(one.split(" ", 1) for one in headers["content-security-policy"].split("; "))
    assert (policy["default-src"], policy["connect-src"], policy["frame-ancestors"]) == ("'none'", "'self'", "'none'")
    for tag in ("script", "style"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>".encode(), body, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"


def test_the_page_loads_nothing_and_makes_no_html_of_what_it_is_told() -> None:
    text = bytes(page_response().parts[0]).decode()
    assert not re.findall(r"https?://|//[a-z]|@import|url\(|\bsrc=|<link|\bon[a-z]+=\"| style=\"", text)
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|localStorage|cookie", text)


def test_the_page_travels_in_a_package() -> None:
    assert own_sources()["serving/page.html"] == bytes(page_response().parts[0])
