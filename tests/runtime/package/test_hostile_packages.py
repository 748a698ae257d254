"""Packages that somebody made to fail, every digest right: our errors or a plain result, never another exception."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlx_deploy.delivery import labelled_data
from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.backends.table import BackendOptions
from dlx_deploy.runtime.commands import actions as commands
from dlx_deploy.runtime.commands.main import main
from dlx_deploy.runtime.commands.parity import check_parity
from dlx_deploy.runtime.engine.settings import BuildSettings
from dlx_deploy.runtime.engine.sidecar import EngineKey, differences, read_sidecar, to_dict
from dlx_deploy.runtime.engine.table import PrecisionTable, violations
from dlx_deploy.runtime.errors import PackageError, RuntimeFault
from dlx_deploy.runtime.package.archive import INDEX, to_json, write_archive
from dlx_deploy.runtime.package.contents import assemble, parse_package
from dlx_deploy.runtime.package.fields import npy_bytes
from dlx_deploy.runtime.package.parity import ParityBounds, ParityTable
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.strict_json import from_json

WRONG = [
    "null",
    "[]",
    "{}",
    "true",
    "-1",
    "0",
    "7",
    "0.5",
    "1e308",
    "1e999",
    "NaN",
    "9" * 25,
    "9" * 5000,
    '""',
    '"x"',
    json.dumps("long " * 2000),
    r'"\u001b]0;pwn\u0007\u202e\n"',
    r'"\ud800"',
    "[null]",
    "[[1]]",
    '{"a": {"b": []}}',
    "[" * 200 + "]" * 200,
]
"""JSON that is of the wrong kind nearly everywhere."""
RECIPE = ("recipe", "backends")
SIDECAR = {
    "schema": 1,
    "key": {"flavour": "tensorrt", "version": "10.3", "system": "Linux", "arch": "aarch64", "gpu": "x", "sm_count": 8},
    "settings": {"flavour": "tensorrt", "precision": "int8", "batch": [1, 1, 4]},
    "precision": {"source": "plan", "layers": [{"name": "a", "kind": "gemm", "precision": "int8", "nodes": ["a"]}]},
    "build_s": 3.5,
    "peak_memory_mib": None,
    "plan_sha256": "0" * 64,
    "plan_size": 5,
}
SETTINGS = {
    "flavour": "tensorrt",
    "precision": "int8",
    "batch": [1, 1, 4],
    "strongly_typed": True,
    "weak_types": ["fp16"],
    "layers": {"a": "int8"},
    "workspace_mib": 64,
    "dla_core": 0,
    "optimization_level": 3,
    "compute_capabilities": ["8.7"],
}


def full_metadata(helpers: Any) -> dict[str, Any]:
    """As ``stages/package`` writes it."""
    engine = {"status": "checked", "builder": "tensorrt-rtx 1.7", "layers": "int8 1 of 1", "schema": 1}
    recipe = {"schema": 2, "kind": "cpu", "precision": "fp32", "elsewhere": "fp32", "reason": "why", "engine": SETTINGS}
    return dict(helpers.metadata(engine=engine, recipe={**recipe, "backends": ["onnxruntime-cpu"]}))


def paths(value: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value inside ``value`` is."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*prefix, key)
        yield from paths(item, (*prefix, key))


def mutated(document: Any, path: tuple[Any, ...], wrong: str) -> bytes:
    """``document`` as JSON with the text ``wrong`` in the place of one value."""
    changed = copy.deepcopy(document)
    table = changed
    for part in path[:-1]:
        table = table[part]
    table[path[-1]] = "@here@"
    return json.dumps(changed).replace('"@here@"', wrong).encode()


def sealed(files: Mapping[str, bytes], index: bytes | None = None) -> dict[str, bytes]:
    """``files`` with the digests of what they now are, so that nothing but their contents is wrong."""
    meta = json.loads(files[INDEX])
    meta["files"] = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in files.items()
        if name != INDEX
    }
    return {**files, INDEX: index or to_json(meta)}


def light(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """``files`` with one module of the runtime, which nothing runs here: thousands of packages are made of them."""
    return sealed(
        {n: d for n, d in files.items() if not n.startswith("dlx_runtime/") or n == "dlx_runtime/__init__.py"}
    )


def use(files: Mapping[str, bytes], session: bool = True) -> None:
    """All that is done with a package on a CPU."""
    package = parse_package(files, "x.dlx")
    to_json(commands.inspect(package).data)
    if not session:
        return
    predictor = Predictor(package, BackendOptions(threads=1))
    to_json(commands.selftest(predictor).data)
    if package.parity is not None:
        to_json(check_parity(predictor, package.golden_inputs).to_dict())


def survives(work: Callable[[], Any], what: Any) -> bool:
    """Whether ``work`` ends well; an error must be one of ours, and short."""
    try:
        work()
    except RuntimeFault as e:
        if len(str(e)) > 2500:
            pytest.fail(f"{what}: {e}")
        return False
    except Exception as e:
        raise AssertionError(f"{what}: {type(e).__name__}: {e}") from e
    return True


@pytest.fixture(scope="module")
def hostile(data: Any, helpers: Any) -> dict[str, bytes]:
    images, bounds = data[0][:5], ParityBounds(26, 18, 0.02)
    answers = helpers.expected_logits(images)
    digests = helpers.tiny_task().inputs.digests({"images": images})
    decisions = answers.argmax(axis=1).astype(np.int32)[:, None]
    parity = ParityTable(digests, {"logits": answers}, decisions, bounds, bounds)
    return light(assemble(helpers.tiny_contents(*data, metadata=full_metadata(helpers), parity=parity)))


@pytest.fixture(scope="module")
def texts() -> dict[str, bytes]:
    from ..tasks.test_texts import contents  # type: ignore[import-not-found]

    return light(assemble(contents()))


def test_every_field_of_the_index_with_every_wrong_value(hostile: dict[str, bytes]) -> None:
    meta = json.loads(hostile[INDEX])
    places = [path for path in paths(meta) if path[0] != "files"]
    assert len(places) > 60
    for path in places:
        session = (
            path[0] in ("task", "inputs", "outputs", "labels", "execution", "golden", "parity") or path[:2] == RECIPE
        )
        for wrong in WRONG:
            files = {**hostile, INDEX: mutated(meta, path, wrong)}
            survives(lambda f=files, s=session: use(f, s), (path, wrong[:40]))


def test_every_field_of_a_text_s_index(texts: dict[str, bytes]) -> None:
    meta = json.loads(texts[INDEX])
    for path in [("tokenizer",), *paths(meta["tokenizer"], ("tokenizer",)), *paths(meta["inputs"], ("inputs",))]:
        for wrong in WRONG:
            survives(lambda p=path, w=wrong: use({**texts, INDEX: mutated(meta, p, w)}), (path, wrong[:40]))


def test_every_field_of_a_sidecar() -> None:
    here = EngineKey("tensorrt", "10.3", "Linux", "x86_64", "digest", "8.7", "x", 8)
    for path in paths(SIDECAR):
        for wrong in WRONG:

            def read(p: tuple[Any, ...] = path, w: str = wrong) -> None:
                sidecar = read_sidecar(mutated(SIDECAR, p, w), "engine.json")
                differences(sidecar.key, here)
                to_json(to_dict(sidecar))
                table = PrecisionTable.from_dict(sidecar.precision)
                table.describe(), table.shares(), violations(table, {"a": "int8"})

            survives(read, (path, wrong[:40]))


def test_every_field_of_the_build_settings() -> None:
    for path in paths(SETTINGS):
        for wrong in WRONG:

            def read(p: tuple[Any, ...] = path, w: str = wrong) -> None:
                try:
                    values = from_json(mutated(SETTINGS, p, w))
                except ValueError:
                    return
                BuildSettings.from_dict(values, "recipe.engine").to_dict()

            survives(read, (path, wrong[:40]))


@pytest.mark.parametrize("member", ["golden/texts.json", "tokenizer.json"])
def test_members_of_a_text_package_that_are_something_else(texts: dict[str, bytes], member: str) -> None:
    document = json.loads(texts[member])
    for wrong in WRONG:
        assert not survives(lambda w=wrong: use(sealed({**texts, member: w.encode()})), wrong[:40])
    for path in list(paths(document))[:40]:
        for wrong in WRONG[:6]:
            survives(lambda p=path, w=wrong: use(sealed({**texts, member: mutated(document, p, w)})), (path, wrong))


def headers(kind: str, shape: str) -> Iterator[bytes]:
    """Headers of a ``.npy`` file, nearly all of them wrong."""
    for descr in (f"'{kind}'", "'|O'", "'>f8'", "'V9'", "[('a','<i4')]", "'<M8[ns]'", "'<U9'", "5", "''", "'<f99'"):
        for order in ("False", "True", "1", "None"):
            for size in (
                shape,
                "(True, 3)",
                "()",
                "(-1, 3)",
                "(0,)",
                "(9**9,)",
                "(99999999999999999, 9999)",
                "5",
                "(1.5,)",
            ):
                yield f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {size}, }}".encode()
    yield from (b"", b"{}", b"\n", b"(" * 5000, b"{'descr': '<f4'}", b"\xff" * 30)


@pytest.mark.parametrize(
    "name",
    [
        "golden/images.npy",
        "golden/logits.npy",
        "reference/digest.npy",
        "reference/label.npy",
        "parity/answers/logits.npy",
        "parity/digest.npy",
        "parity/decisions.npy",
    ],
)
def test_every_header_of_an_array(hostile: dict[str, bytes], name: str) -> None:
    original = hostile[name]
    end = 10 + int.from_bytes(original[8:10], "little")
    kind = {"images": "|u1", "logits": "<f4", "digest": "<u8", "label": "<i8", "decisions": "<i4"}[Path(name).stem]
    shape = original[10:end].decode().partition("'shape': ")[2].partition("), }")[0] + ")"
    good = 0
    for header in headers(kind, shape):
        data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + original[end:]
        good += survives(lambda d=data: parse_package(sealed({**hostile, name: d}), "x"), header[:80])
    assert good == 1


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("reference/label.npy", lambda a: a + 3, r"names class 3; must be 0 to 2"),
        ("reference/teacher.npy", lambda a: a | np.int64(-(2**63)), r"names class -92\d+; must be 0 to 2"),
    ],
)
def test_numbers_that_mean_nothing(hostile: dict[str, bytes], name: str, change: Any, message: str) -> None:
    array = np.load(__import__("io").BytesIO(hostile[name]))
    with pytest.raises(PackageError, match=message):
        parse_package(sealed({**hostile, name: npy_bytes(change(array))}), "x.dlx")


def flips(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """``data`` with one to three bytes changed, ``count`` times."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        changed = bytearray(data)
        for position in rng.integers(0, len(data), rng.integers(1, 4)):
            changed[position] = rng.integers(0, 256)
        yield bytes(changed)


def flip_members(files: dict[str, bytes], count: int) -> None:
    for seed, name in enumerate(sorted(set(files) - {INDEX})):
        if name.startswith(("dlx_runtime/", "__main__", "MODEL_CARD", "manifest")):
            continue
        for number, changed in enumerate(flips(files[name], count, seed)):
            survives(lambda n=name, c=changed: use(sealed({**files, n: c})), (name, number))


def test_flipped_bytes_of_members(hostile: dict[str, bytes], texts: dict[str, bytes]) -> None:
    flip_members(hostile, 60)
    flip_members(texts, 40)


@pytest.mark.slow
def test_many_flipped_bytes_of_members(hostile: dict[str, bytes], texts: dict[str, bytes]) -> None:
    flip_members(hostile, 1500)
    flip_members(texts, 1000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"budgets": {"confidence": 0, "max_drop": 0.1, "max_latency_p90_ms": 0}},
            "budgets.confidence is 0.0; must be at",
        ),
        (
            {"budgets": {"confidence": 2, "max_drop": 0.1, "max_latency_p90_ms": 0}},
            "budgets.confidence is 2.0; must be",
        ),
        ({"budgets": {"confidence": 1, "max_drop": 0.1, "max_latency_p90_ms": 0}}, "at least 0.5 and under 1"),
        (
            {"budgets": {"confidence": 0.9, "max_drop": 5, "max_latency_p90_ms": 0}},
            "budgets.max_drop is 5.0; must be at l",
        ),
        ({"precision": {"plan": None}}, "precision.plan is None; must be of type str"),
        (
            {"precision": {"plan": "int8", "layers": {"a": 5}}},
            r"precision.layers is \{'a': 5\}; must be a table of node",
        ),
        ({"target": {"name": "x", "title": 5}}, "target.title is 5; must be a string"),
        ({"recipe": {"backends": 5}}, "recipe.backends is 5; must be a list of backends, best first"),
        ({"recipe": {"backends": []}}, r"recipe.backends is \[\]; must be a list of backends"),
        ({"recipe": {"engine": []}}, r"recipe.engine is \[\]; must be a table"),
        ({"engine": None}, "engine is None; must be a table"),
        ({"engine": {"status": "sunk"}}, "engine.status is 'sunk'; must be none, checked or shipped"),
        ({"engine": {"status": "checked"}}, "engine.builder is None; must be of type str"),
        (
            {"preprocessing": {"resize": "nearest"}},
            "preprocessing.resize is 'nearest'; must be one of bilinear, squash, crop, letterbox",
        ),
    ],
)
def test_fields_of_the_wrong_kind_are_named(data: Any, helpers: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PackageError, match=message):
        assemble(helpers.tiny_contents(*data, metadata={**full_metadata(helpers), **changes}))


def test_a_batch_that_fills_the_memory(data: Any, helpers: Any) -> None:
    with pytest.raises(PackageError, match=r"inputs.0.shape is \[2000000, 6, 4, 3\]; a batch has at most 65536 inputs"):
        assemble(helpers.tiny_contents(*data, batch=2_000_000))


def test_the_command_line_ends_with_our_error(
    hostile: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = json.loads(hostile[INDEX])
    for path, wrong in [
        (("engine",), "null"),
        (("name",), "1"),
        (("recipe", "backends"), "5"),
        (("golden", "tolerances", "logits", "atol"), "NaN"),
    ]:
        write_archive(tmp_path / "x.dlx", {**hostile, INDEX: mutated(meta, path, wrong)})
        for command in ("info", "selftest", "bench"):
            assert main([command], str(tmp_path / "x.dlx")) == 2
            assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (b"{}", r"x\.dlx: its manifest\.json does not say how the data were made \(KeyError"),
        (b"[" * 9999, r"does not say how the data were made"),
        (b'{"steps": [1]}', r"does not say how the data were made \(TypeError"),
        (b'{"steps": {"data": {"params": {"kind": "digits"}, "seed": "x"}}}', "were made .ValidationError"),
        (b'{"steps": {"data": {"params": {"kind": 5}, "seed": 0}}}', "were made .ValidationError"),
        (
            b'{"steps": {"data": {"params": {"kind": "none"}, "seed": 0}}}',
            r"--data digits: x\.dlx was built from data of kind 'none'; give their folder or file by --data",
        ),
        (
            b'{"steps": {"data": {"params": {"kind": "imagefolder", "path": "/etc"}, "seed": 0}}}',
            r"--data digits: .*x\.dlx was built from data of kind 'imagefolder'; give their folder or file by --data",
        ),
    ],
)
def test_a_manifest_says_how_built_in_data_are_made_or_nothing(
    hostile: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifest: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_archive("x.dlx", sealed({**hostile, "manifest.json": manifest}))
    with pytest.raises(ConfigError, match=message), labelled_data("digits", Path("x.dlx")):
        pytest.fail("made data")
