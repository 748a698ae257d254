#!/usr/bin/env bash
# Style, types and import rules: what CI and pre-commit run.
set -euo pipefail
cd "$(dirname "$0")/.."
ruff check .
ruff format --check .
mypy
mypy benchmarks
lint-imports
