import json
from typing import Any

import numpy as np
import pytest

from dlx_deploy.runtime.errors import PackageError
from dlx_deploy.runtime.watching.reference import DriftReference, FeatureReference, parse_reference

BRIGHTNESS = FeatureReference("input_brightness", (1.0, 2.0), (4, 3, 3), (0.5, 0.25), 1.5)
CLASS = FeatureReference("output_class", None, (5, 5, 0), (0.5, 0.25))
REFERENCE = DriftReference(10, (64, 256), (BRIGHTNESS, CLASS))


def table(**changes: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(REFERENCE.to_dict())), **changes}


def feature(**changes: Any) -> dict[str, Any]:
    return table(features=[{**table()["features"][0], **changes}])


def parsed(value: object) -> DriftReference:
    return parse_reference(json.dumps(value).encode(), "x.dlx")


def test_what_is_written_is_read() -> None:
    assert parsed(table()) == REFERENCE


def test_every_value_has_a_bin_whatever_it_is() -> None:
    values = np.array([-np.inf, 1, 1.5, 2, 2.5, np.inf, np.nan], np.float32)
    assert BRIGHTNESS.bins(values).tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert CLASS.bins(np.array([0, 1, 7, -3, np.nan], np.float32)).tolist() == [0, 1, 2, 2, 2]
    assert BRIGHTNESS.distance(np.array([1, 1, 1, 1, 2, 2, 2, 3, 3, 3], np.float32)) == pytest.approx(0)
    assert CLASS.distance(np.full(9, 40, np.float32)) == pytest.approx(0.75**0.5)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], r"schema is \[\]; must be 1"),
        (table(schema=2), "schema is 2; must be 1, what this runtime reads"),
        (table(samples=True), "samples is True; must be a whole number"),
        (table(samples=11), "samples is 11; must be the sum of the counts of each feature"),
        (table(windows=[256, 64]), "windows is .*; must be whole numbers that grow"),
        (table(windows=[0.5, 64]), "windows is .*; must be whole numbers that grow"),
        (table(windows=[]), "windows is .*; must be a list of 1 to 16 finite numbers"),
        (table(features=[]), "features is .*; must be a list of 1 to 256"),
        (table(features=[7]), r"features\.0 is 7; must be a table"),
        (table(features=[table()["features"][0]] * 2), "features is .*; must have different names"),
        (feature(name="a b\x1b"), r"features\.0\.name is 'a b\\x1b'; must be a word"),
        (feature(kind="other"), r"features\.0\.kind is 'other'; must be class or magnitude"),
        (feature(counts=[4, 3, -1]), r"features\.0\.counts is .*; must be whole numbers from 0, not all 0"),
        (feature(counts=[0, 0, 0]), r"features\.0\.counts is .*; must be whole numbers from 0, not all 0"),
        (feature(thresholds=[0.5]), r"features\.0\.thresholds is .*; must be a list of 2 to 2 finite numbers"),
        (feature(thresholds=[0.5, 0]), r"features\.0\.thresholds is .*; must be above 0 and at most 2"),
        (feature(edges=[1.0]), r"features\.0\.edges is .*; must be a list of 2 to 2 finite numbers"),
        (feature(edges=[2.0, 1.0]), r"features\.0\.edges is .*; must grow"),
        (feature(median=None), r"features\.0\.median is \[None\]; must be a list of 1 to 1 finite numbers"),
    ],
)
def test_what_is_wrong_is_named(value: object, says: str) -> None:
    with pytest.raises(PackageError, match=rf"^x\.dlx: drift\.json: {says}"):
        parsed(value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b'{"schema": NaN}', b"[" * 9999])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(PackageError, match=r"x\.dlx: drift\.json is not JSON"):
        parse_reference(data, "x.dlx")
