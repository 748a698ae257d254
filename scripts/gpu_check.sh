#!/usr/bin/env bash
# What only a GPU can show: the tests marked `gpu`, then latencies and parity into benchmarks/results/gpu-NAME.json.
# Needs an NVIDIA GPU, `tensorrt` or `tensorrt-rtx`, and cuda-python; onnxruntime-gpu is compared with where it is there.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L; then
    echo "error: no NVIDIA GPU or driver on this machine; nothing was measured" >&2
    exit 4
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
python -m pytest -m gpu -p no:cacheprovider
python benchmarks/gpu_latency.py --output "${1:-benchmarks/results}"
