"""What may be imported where, seen from fresh interpreters."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "onnx", "numpy", "onnxruntime", "sklearn", "torchvision", "PIL")


def imported_by(code: str, *arguments: str) -> set[str]:
    """The heavy modules that a fresh interpreter holds after ``code``."""
    tail = f"\nimport sys; print('modules', *[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + tail, *arguments], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "code",
    [
        "import dlx_deploy",
        "import dlx_deploy.runtime",
        "import dlx_deploy.cli",
        "import dlx_deploy.building",
        "import dlx_deploy.config, dlx_deploy.targets, dlx_deploy.pipeline.run",
        "from dlx_deploy.stages.registry import STAGES, load_stage\nfor name in STAGES: load_stage(name)",
        "from dlx_deploy import cli; cli.run(['--help'])",
        "from dlx_deploy import cli; cli.run(['build', '--help'])",
        "from dlx_deploy import cli; cli.run(['targets', 'list'])",
        "from dlx_deploy import cli; cli.run(['plan', '--store', 'none'])",
    ],
)
def test_light(code: str) -> None:
    assert imported_by(code) == set()


def test_threads_sleep_while_they_wait() -> None:
    code = (
        "import os; os.environ.pop('OMP_WAIT_POLICY', None); import dlx_deploy.nn; print(os.environ['OMP_WAIT_POLICY'])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "PASSIVE"


def test_the_public_names_are_lazy() -> None:
    import dlx_deploy

    assert set(dlx_deploy.__all__) == {"__version__", "load"}
    assert imported_by("import dlx_deploy; dlx_deploy.load") <= {"numpy"}
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        dlx_deploy.laod  # noqa: B018
