from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from dlx_deploy.runtime.watching.counters import Counters
from dlx_deploy.runtime.watching.exposition import counted, exposition, gauge
from dlx_deploy.runtime.words import line


def some_counters() -> Counters:
    counters = Counters()
    counters.request(100)
    counters.answer(3, 20)
    for size in (3, 4000):
        counters.ran(size, 0.003)
    counters.error("InputError")
    return counters


def test_the_public_parser_reads_the_counters_back() -> None:
    snapshot = some_counters().snapshot()
    families = {one.name: one for one in text_string_to_metric_families(exposition(counted(snapshot, {"model": "m"})))}
    (requests,) = families["dlx_requests"].samples
    assert (requests.name, requests.labels, requests.value) == ("dlx_requests_total", {"model": "m"}, 1.0)
    assert families["dlx_requests"].type == "counter"
    assert families["dlx_received_bytes"].samples[0].value == 100
    assert families["dlx_errors"].samples[0].labels == {"model": "m", "kind": "InputError"}
    batches = families["dlx_batch_samples"]
    assert batches.type == "histogram"
    buckets = {one.labels["le"]: one.value for one in batches.samples if one.name.endswith("_bucket")}
    assert (buckets["2"], buckets["4"], buckets["1024"], buckets["+Inf"]) == (0, 1, 1, 2)
    assert [one.value for one in batches.samples if one.name.endswith("_sum")] == [4003]
    model = [one for one in families["dlx_stage_seconds"].samples if one.labels["stage"] == "model"]
    assert [one.value for one in model if one.name == "dlx_stage_seconds_sum"] == [0.006]
    assert all(one.documentation for one in families.values())


def test_several_packages_share_a_family_and_its_head_stands_once() -> None:
    snapshot = some_counters().snapshot()
    text = exposition([*counted(snapshot, {"model": "a"}), *counted(snapshot, {"model": "b"})])
    assert text.count("# TYPE dlx_requests_total counter") == 1
    (family,) = (one for one in text_string_to_metric_families(text) if one.name == "dlx_requests")
    assert [one.labels["model"] for one in family.samples] == ["a", "b"]


@given(st.text(), st.floats())
def test_any_name_and_any_number_are_read_back(name: str, value: float) -> None:
    text = exposition([gauge("dlx_x_ratio", 'A back\\slash, a "quote" and\na line.', value, {"model": name})])
    (family,) = text_string_to_metric_families(text)
    (sample,) = family.samples
    assert sample.labels == {"model": line(name)}
    assert sample.value == value or (sample.value != sample.value and value != value)
