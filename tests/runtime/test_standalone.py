"""The package as a device meets it: ``python X.dlx`` where neither dlx-deploy nor torch exist, on old Pythons too."""

from __future__ import annotations

import ast
import glob
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import MAIN

SOURCES = sorted((Path(__file__).parents[2] / "dlx_deploy" / "runtime").rglob("*.py"))
NEEDED = ("numpy", "onnxruntime", "PIL")


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that sees numpy, onnxruntime and Pillow, and nothing else of this environment."""
    root = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root)], check=True, capture_output=True)
    site = next(iter(root.glob("lib/python*/site-packages")))
    for name in NEEDED:
        home = Path(importlib.import_module(name).__file__ or "").parents[1]
        libraries = {"PIL": "pillow.libs"}.get(name, f"{name}.libs")
        for folder in (name, libraries):
            if (home / folder).is_dir():
                (site / folder).symlink_to(home / folder)
    return root / "bin" / "python"


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory, dlx: Path, data: Any) -> Path:
    """A folder far from the sources that holds a copy of the package and an image."""
    folder = tmp_path_factory.mktemp("device")
    shutil.copy(dlx, folder / "tiny.dlx")
    Image.fromarray(data[0][1]).save(folder / "dog.png")
    return folder


def call(python: Path | str, folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV"))}
    command = [str(python), *argv]
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("module", ["torch", "dlx_deploy", "onnx", "msgspec", "typer"])
def test_the_bare_python_is_bare(bare_python: Path, elsewhere: Path, module: str) -> None:
    done = call(bare_python, elsewhere, "-c", f"import {module}")
    assert f"No module named '{module}'" in done.stderr


def test_predict_without_dlx_deploy_and_torch(bare_python: Path, elsewhere: Path) -> None:
    done = call(bare_python, elsewhere, "tiny.dlx", "predict", "dog.png", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["predictions"][0]["top"][0]["label"] == "dog"


def test_nothing_is_taken_down_at_the_end(bare_python: Path, elsewhere: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n\nclass Held:\n    def __del__(self, write=sys.stderr.write):\n        write('taken down')\n\n"
        "held = Held()\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    told = []
    for argv in (["tiny.dlx"], ["-Xdev", "tiny.dlx"]):
        done = subprocess.run(
            [bare_python, *argv, "predict", "dog.png"],
            cwd=elsewhere,
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith("dog.png\tdog")
        told.append("taken down" in done.stderr)
    assert told == [False, True]


OTHERS = {"actions", "baseline", "bench", "bench_view", "parity", "proof", "resources", "selftest", "verify", "views"}
"""Modules of commands that are not ``predict``."""
AND_MODULES = """
import runpy, sys
sys.argv = ["tiny.dlx", "predict", "dog.png"]
try:
    runpy.run_path("tiny.dlx", run_name="__main__")
finally:
    print(*sorted(sys.modules), file=sys.stderr)
"""


def test_predict_imports_nothing_of_the_other_commands(bare_python: Path, elsewhere: Path) -> None:
    done = call(bare_python, elsewhere, "-c", AND_MODULES)
    assert done.stdout.startswith("dog.png\tdog")
    loaded = set(done.stderr.split())
    assert "dlx_runtime.commands.predicting" in loaded
    assert loaded.isdisjoint(f"dlx_runtime.commands.{name}" for name in OTHERS)
    rooms = ("engine", "power", "statistics", "timing", "serving", "watching")
    assert not [name for name in loaded if name.startswith(tuple(f"dlx_runtime.{room}" for room in rooms))]
    needless = (
        "alias",
        "backends.exact",
        "package.bundle",
        "package.keys",
        "tasks.labelled",
        "tasks.text_classification",
    )
    assert loaded.isdisjoint({"argparse", "csv", *(f"dlx_runtime.{name}" for name in needless)})


def test_selftest_bench_and_info_without_dlx_deploy_and_torch(bare_python: Path, elsewhere: Path) -> None:
    assert "self-test passed" in call(bare_python, elsewhere, "tiny.dlx", "selftest").stdout
    bench = call(bare_python, elsewhere, "tiny.dlx", "bench", "--rounds", "30", "--json")
    assert json.loads(bench.stdout)["latency"]["n"] == 30
    assert call(bare_python, elsewhere, "tiny.dlx").stdout.startswith("tiny 1.2.3")


def test_verify_without_dlx_deploy_and_torch(bare_python: Path, elsewhere: Path, data: Any, helpers: Any) -> None:
    images, labels = data
    for i in range(12):
        folder = elsewhere / "test" / helpers.labels[labels[i]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i]).save(folder / f"{i}.png")
    done = call(bare_python, elsewhere, "tiny.dlx", "verify", "--data", ".", "--max-drop", "0.5", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["accuracy"] == 1.0


def test_errors_without_dlx_deploy_and_torch(bare_python: Path, elsewhere: Path) -> None:
    done = call(bare_python, elsewhere, "tiny.dlx", "predict", "none.png")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: none.png: no such image file\n"


@pytest.mark.parametrize(
    ("hidden", "argv", "remedy"),
    [
        ("onnxruntime", ["selftest"], "pip install onnxruntime"),
        ("PIL", ["predict", "dog.png"], "pip install pillow"),
        ("numpy", ["info"], "pip install numpy onnxruntime"),
    ],
)
def test_a_missing_library_is_named(
    bare_python: Path, elsewhere: Path, hidden: str, argv: list[str], remedy: str
) -> None:
    site = next(iter(bare_python.parents[1].glob("lib/python*/site-packages")))
    link = site / hidden
    kept = link.readlink()
    link.unlink()
    try:
        done = call(bare_python, elsewhere, "tiny.dlx", *argv)
    finally:
        link.symlink_to(kept)
    assert (done.returncode, done.stdout) == (4, "")
    assert remedy in done.stderr
    assert "Traceback" not in done.stderr


def test_a_deflated_package_runs_too(bare_python: Path, elsewhere: Path, files: dict[str, bytes], dlx: Path) -> None:
    write_archive(elsewhere / "small.dlx", files, deflate=True)
    done = call(bare_python, elsewhere, "small.dlx", "selftest")
    assert (done.returncode, done.stderr) == (0, "")
    assert (elsewhere / "small.dlx").stat().st_size < dlx.stat().st_size / 2


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc to see when the measuring has begun")
def test_ctrl_c_is_130(bare_python: Path, elsewhere: Path) -> None:
    command = [str(bare_python), "tiny.dlx", "bench", "--rounds", "100000000"]
    process = subprocess.Popen(
        command,
        cwd=elsewhere,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job's children ignore it
    )
    maps = Path(f"/proc/{process.pid}/maps")
    deadline = time.monotonic() + 30
    while "onnxruntime" not in maps.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


def test_nothing_is_written_beside_the_package(bare_python: Path, elsewhere: Path) -> None:
    before = sorted(p.name for p in elsewhere.iterdir())
    call(bare_python, elsewhere, "tiny.dlx", "predict", "dog.png")
    assert sorted(p.name for p in elsewhere.iterdir()) == before


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.name)
def test_sources_parse_as_python_3_8(source: Path) -> None:
    ast.parse(source.read_text(encoding="utf-8"), feature_version=(3, 8))


def python38() -> str | None:
    pattern = os.path.join(os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv")), "versions", "3.8.*", "bin")
    for candidate in [*glob.glob(os.path.join(pattern, "python3.8")), shutil.which("python3.8")]:
        if candidate and subprocess.run([candidate, "-c", ""], check=False, capture_output=True).returncode == 0:
            return candidate
    return None


needs_python38 = pytest.mark.skipif(python38() is None, reason="no python3.8 on PATH or in pyenv")


@needs_python38
def test_sources_compile_with_python_3_8(elsewhere: Path) -> None:
    script = "import sys; [compile(open(p, encoding='utf-8').read(), p, 'exec') for p in sys.argv[1:]]; print('done')"
    done = call(str(python38()), elsewhere, "-c", script, *map(str, SOURCES))
    assert (done.stdout, done.stderr) == ("done\n", "")


@needs_python38
def test_modules_without_numpy_run_on_python_3_8(elsewhere: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, 'tiny.dlx')\n"
        "from dlx_runtime import errors\n"
        "from dlx_runtime.package import archive\n"
        "from dlx_runtime.statistics import drops\n"
        "assert type(errors.__loader__).__module__ == 'dlx_runtime.code_cache', errors.__loader__\n"
        "print(len(archive.read_archive('tiny.dlx')), drops.non_inferiority(220, 180, 10000, 0.01, 0.95).verdict)"
    )
    done = call(str(python38()), elsewhere, "-c", script)
    assert done.stdout.endswith(" pass\n"), done.stderr


def test_an_older_python_is_told_so(tmp_path: Path) -> None:
    old = "import sys; sys.version_info = (3, 6, 9); sys.version = '3.6.9 (default)'; exec(open(sys.argv[1]).read())"
    (tmp_path / "main.py").write_bytes(MAIN)
    done = call(sys.executable, tmp_path, "-c", old, "main.py")
    assert done.returncode == 1
    assert done.stderr == "error: this package needs Python 3.8 or newer; this is 3.6.9\n"


@pytest.mark.parametrize(
    "module", ["dlx_deploy.runtime", "dlx_deploy.runtime.commands.main", "dlx_deploy.runtime.predictor"]
)
def test_import_pulls_nothing_heavy(module: str) -> None:
    script = f"import sys, {module}; print(sorted(m for m in sys.modules if '.' not in m))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stdout))
    assert loaded.isdisjoint({"torch", "onnx", "onnxruntime", "PIL", "msgspec", "typer", "scipy"})
    if module == "dlx_deploy.runtime":
        assert "numpy" not in loaded


def test_public_names() -> None:
    from dlx_deploy import runtime

    assert runtime.__all__ == [
        "BackendMissing",
        "BudgetMissed",
        "Busy",
        "EngineError",
        "InputError",
        "MicroBatcher",
        "PackageError",
        "Predictions",
        "Predictor",
        "RuntimeFault",
        "SelfTestFailed",
        "Trust",
        "Undecided",
        "Watch",
        "load",
    ]
    assert {name: getattr(runtime, name).__name__ for name in dir(runtime)} == {name: name for name in runtime.__all__}
    with pytest.raises(AttributeError, match=r"module 'dlx_deploy\.runtime' has no attribute 'nonsense'"):
        _ = runtime.nonsense


@pytest.mark.parametrize("source", [p for p in SOURCES if p.stem not in ("__init__", "__main__")], ids=lambda p: p.stem)
def test_every_module_has_an_exact_all(source: Path) -> None:
    name = source.relative_to(Path(__file__).parents[2]).with_suffix("").as_posix().replace("/", ".")
    module = importlib.import_module(name)
    assert all(hasattr(module, name) for name in module.__all__)
    tree = ast.parse(source.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.ClassDef)
    public = {node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")}
    assert public <= set(module.__all__)


def test_exit_codes() -> None:
    from dlx_deploy.runtime import errors

    codes = {name: getattr(errors, name).exit_code for name in errors.__all__ if name != "first_fault"}
    assert codes == {
        "BackendMissing": 4,
        "Busy": 4,
        "Expired": 4,
        "Stopped": 4,
        "BudgetMissed": 3,
        "InputError": 2,
        "PackageError": 2,
        "RuntimeFault": 1,
        "SelfTestFailed": 5,
        "TeacherNeeded": 2,
        "Undecided": 6,
        "EngineError": 7,
    }
