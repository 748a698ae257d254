from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from typing import Any

from PIL import Image

from dlx_deploy.runtime.serving.page import page_response
from dlx_deploy.runtime.sources import own_sources

from ..tasks.test_semantic_segmentation import contents, opened

PNG = {"Content_Type": "image/png"}


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


def test_the_page_is_given_masks_to_lay_over_pictures(http: Any, helpers: Any) -> None:
    assert "/predict?drawn=1&top=" in bytes(page_response().parts[0]).decode()
    picture = io.BytesIO()
    Image.new("RGB", (12, 8), (0, 200, 0)).save(picture, "PNG")
    with http.served(opened(contents(helpers))) as server:

        def asked(query: str) -> Any:
            client = http.client(server.address)
            client.send(http.request("POST", f"/v2/models/tiny/predict{query}", picture.getvalue(), **PNG))
            return json.loads(client.answer()[2])

        (answer,) = asked("?drawn=1&top=3")["predictions"]
        mask = Image.open(io.BytesIO(base64.b64decode(answer["drawn"])))
        assert (mask.size, answer["colours"]) == ((12, 8), {"green": "#800000"})
        assert set(asked("")["predictions"][0]) == {"shares"}
        assert asked("?drawn=yes")["error"] == "drawn is 'yes'; must be 0 or 1"
