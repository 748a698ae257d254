"""What a server says of itself over HTTP, read by the public parser of its metrics."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

Ask = Callable[..., tuple[int, dict[str, str], bytes]]


def test_metrics_count_what_was_asked_answered_and_refused(ask: Ask, data: Any) -> None:
    def total(name: str, **labels: str) -> float:
        page = ask("GET", "/metrics")
        assert page[1]["content-type"].startswith("text/plain; version=0.0.4")
        families = text_string_to_metric_families(page[2].decode())
        return sum(
            one.value
            for family in families
            for one in family.samples
            if one.name == name and labels.items() <= one.labels.items()
        )

    images = data[0][:2]
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(images.shape), "data": images.ravel().tolist()}
    before = {name: total(name) for name in ("dlx_requests_total", "dlx_answers_total")}
    assert ask("POST", "/v2/models/tiny/infer", {"inputs": [tensor]})[0] == 200
    assert ask("POST", "/v2/models/tiny/infer", {"inputs": []})[0] == 400
    assert total("dlx_requests_total") - before["dlx_requests_total"] == 2
    assert total("dlx_answers_total") - before["dlx_answers_total"] == 2
    assert total("dlx_errors_total", kind="HTTP 400") >= 1
    for stage in ("read", "wait", "model", "decode"):
        assert total("dlx_stage_seconds_count", stage=stage) >= 1


def test_health_says_more_than_the_protocol_has(ask: Ask) -> None:
    status, _, body = ask("GET", "/v2/health")
    table = json.loads(body)
    (model,) = table["models"]
    assert (status, table["live"], model["model"], model["drift"]) == (200, True, "tiny", None)
    assert model["health"]["state"] in ("starting", "ready")
