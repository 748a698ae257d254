#!/usr/bin/env bash
# What only a GPU can show: the tests marked `gpu`, then latencies, parity and training into benchmarks/results/gpu-*.json.
# Needs an NVIDIA GPU, `tensorrt` or `tensorrt-rtx`, and cuda-python; onnxruntime-gpu is compared with where it is there.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L; then
    echo "error: no NVIDIA GPU or driver on this machine; nothing was measured" >&2
    exit 4
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
out="${1:-benchmarks/results}"
failed=()
part() {
    echo "== $1 =="
    shift
    "$@" || failed+=("exit $? of: $*")  # what one GPU cannot show (TensorRT-RTX on an H100) hides nothing of the rest
}
part tests python -m pytest tests/gpu -m gpu -n 0 -p no:cacheprovider  # one process: they share one GPU
part latency python benchmarks/gpu_latency.py --output "$out"
part "training step" python benchmarks/training_step.py --json "$out/gpu-training-step.json"
# CIFAR-10 in an image folder, train/CLASS/*.jpg and test/CLASS/*.jpg: a ResNet-18 to 91 % in under 10 minutes.
if [[ -n "${CIFAR10:-}" ]]; then
    part "ResNet-18" python benchmarks/train_classifier.py "$CIFAR10" --model resnet18 --stem small --epochs 24 --batch-size 256 \
        --precision bf16 --json "$out/gpu-train-resnet18.json"
fi
if ((${#failed[@]})); then
    printf 'error: %s\n' "${failed[@]}" >&2
    exit 1
fi
