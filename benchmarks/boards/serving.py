"""What does HTTP cost: throughput and p99 of a served package against its bare session, by how many ask at a time?

    python benchmarks/boards/serving.py dist/digits-0.1.0-cpu-x86_64.dlx resnet18 --threads 1 --json serving.json

``resnet18``: torchvision's, 224 px, with random weights. The clients are one process of their own that keeps a
connection for each and one request under way on it: tensors as bytes, both ways. The bare session is run by as many
threads in a process without a server, and ``of_one_caller`` is against one of them, which a queue is to the session.
All are timed in turn, some rounds of each, so that what else the machine does meets all; where it does much, threads
win that are many, and ``cpu_ms``, the CPU milliseconds of an answer, says more than throughput. Where no answer came
within ``--seconds`` a row says 0 answers, and no times.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dlx_deploy.runtime.machine import machine_info
from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import PackageContents, assemble, make_reference
from dlx_deploy.runtime.predictor import Predictor, load
from dlx_deploy.runtime.tasks.arrays import Tolerance
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.image_classification import image_classification
from dlx_deploy.runtime.tasks.task import Task

__all__ = ["main"]

CLIENTS = (1, 4, 32)
WARM_S = 0.3
Figures = dict[str, "float | None"]
"""``answers`` in a round, what they took and cost; ``None``: there were none to tell by."""


def main(argv: list[str]) -> int:
    if argv[:1] == ["--ask"]:
        return ask(argv[1], int(argv[2]), float(argv[3]), int(argv[4]))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="+", metavar="X.dlx", help="or resnet18")
    parser.add_argument("--threads", type=int, default=1, help="of the session")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-batch", type=int, nargs="*", default=[1, 16], help="each is served by itself")
    workers = "batches that run at once, each number served by itself with each --max-batch (default: serve's own)"
    parser.add_argument("--workers", type=int, nargs="*", default=[None], metavar="N", help=workers)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = {"machine": machine_info(), "threads": options.threads, "networks": {}}
        for name in options.packages:
            path = resnet18(Path(folder)) if name == "resnet18" else Path(name)
            found["networks"][path.stem] = network(path, options)
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def network(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The rounds of one package: bare, and served with each ``--max-batch`` and ``--workers``."""
    predictor = load(path, threads=options.threads)
    rounds: dict[tuple[str, int], list[Figures]] = {}
    with contextlib.ExitStack() as stack:
        servers: dict[str, Served] = {}
        for batch, workers in itertools.product(options.max_batch, options.workers):
            how = f"http, max_batch {batch}" + (f", workers {workers}" if workers else "")
            servers[how] = stack.enter_context(Served(path, options.threads, batch, workers))
        for _ in range(options.rounds):
            for clients in CLIENTS:
                rounds.setdefault(("bare", clients), []).append(bare(predictor, clients, options.seconds))
                for how, server in servers.items():
                    rounds.setdefault((how, clients), []).append(server.asked(predictor, clients, options.seconds))
    table: dict[str, Any] = {}
    for (how, clients), all_of in rounds.items():
        row = {key: middle([one[key] for one in all_of], 4) for key in all_of[0]}
        for name, callers in (("of_bare", clients), ("of_one_caller", 1)):
            row[name] = middle(list(map(share, all_of, rounds["bare", callers])), 3)
        table.setdefault(f"{clients} clients", {})[how] = row
        print(path.stem, clients, how, row, file=sys.stderr)
    return table


def middle(values: list[float | None], digits: int) -> float | None:
    """The median of those that are known."""
    known = [value for value in values if value is not None]
    return round(float(statistics.median(known)), digits) if known else None


def share(one: Figures, other: Figures) -> float | None:
    """The throughput of ``one`` as a part of that of ``other``."""
    return one["per_s"] / other["per_s"] if one["per_s"] is not None and other["per_s"] else None


def bare(predictor: Predictor, clients: int, seconds: float) -> Figures:
    """The session, run by so many threads for so long."""
    session, feeds = predictor.backend.session, sample(predictor)
    names = [one.name for one in predictor.package.task.outputs.tensors]
    latencies: list[float] = []
    until = 0.0

    def run() -> None:
        while True:
            began = time.perf_counter()
            session.run(names, feeds)
            ended = time.perf_counter()
            if ended > until:
                return
            latencies.append(ended - began)

    until = time.perf_counter() + WARM_S
    for _ in range(2):
        used, began = time.process_time(), time.perf_counter()
        threads = [threading.Thread(target=run) for _ in range(clients)]
        latencies.clear()
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        took, until = time.perf_counter() - began, time.perf_counter() + seconds
    return figures(latencies, took, time.process_time() - used)


class Served:
    """The package, served by a process of its own."""

    def __init__(self, path: Path, threads: int, batch: int, workers: int | None = None) -> None:
        command = [sys.executable, "-m", "dlx_deploy.runtime", str(path), "serve", "--port", "0", "--json"]
        command += [f"--threads={threads}", f"--max-batch={batch}"]
        command += [f"--workers={workers}"] if workers else []
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        text = ""
        while not (text.count("{") and text.count("{") == text.count("}")):
            if not (said := self._process.stdout.readline()):
                raise SystemExit(f"{' '.join(command)} ended with exit code {self._process.wait()}")
            text += said
        self.url = json.loads(text)["url"]

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)

    def asked(self, predictor: Predictor, clients: int, seconds: float) -> Figures:
        """By so many clients for so long; every answer is held against the session's own."""
        package, feeds = predictor.package, sample(predictor)
        wanted = predictor.run(feeds)
        ((name, array),) = feeds.items()
        datatype = {"uint8": "UINT8", "int32": "INT32"}[array.dtype.name]
        entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        entry["parameters"] = {"binary_data_size": array.nbytes}
        head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
        fields = f"Host: localhost\r\nInference-Header-Content-Length: {len(head)}\r\nContent-Length: "
        first = f"POST /v2/models/{package.name}/infer HTTP/1.1\r\n{fields}{len(head) + array.nbytes}\r\n\r\n"
        command = [sys.executable, __file__, "--ask", self.url, str(clients), str(seconds), str(self._process.pid)]
        tail = np.concatenate([one.reshape(-1) for one in wanted.values()]).astype(np.float32)
        body = first.encode() + head + array.tobytes()
        done = subprocess.run(
            command, input=len(body).to_bytes(8, "little") + body + tail.tobytes(), capture_output=True, check=True
        )
        seen = json.loads(done.stdout)
        return figures(seen["latencies"], seen["took"], seen["used"])


def figures(latencies: list[float], took: float, used: float) -> Figures:
    """Answers, those a second, milliseconds by percentile, CPU milliseconds of an answer."""
    count = len(latencies)
    if not count:
        return {"answers": 0, "per_s": 0.0, "p50_ms": None, "p99_ms": None, "cpu_ms": None}
    p50, p99 = (1e3 * float(one) for one in np.percentile(latencies, [50, 99]))
    return {"answers": count, "per_s": count / took, "p50_ms": p50, "p99_ms": p99, "cpu_ms": 1e3 * used / count}


def cpu_s(pid: int) -> float:
    """The CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ask(url: str, clients: int, seconds: float, server: int) -> int:
    """The clients, in one thread: what is sent, and what each answer must end with, come on stdin."""
    given = sys.stdin.buffer.read()
    size = int.from_bytes(given[:8], "little")
    request, wanted = given[8 : 8 + size], np.frombuffer(given[8 + size :], np.float32)
    host, _, port = url.partition("://")[2].partition(":")
    latencies: list[float] = []
    began = used = 0.0
    with selectors.DefaultSelector() as selector:
        for _ in range(clients):
            one = Connection(socket.create_connection((host, int(port))), request, wanted)
            selector.register(one.sock, selectors.EVENT_READ, one.more)
            one.send()
        for length in (WARM_S, seconds):
            latencies.clear()
            began, used = time.perf_counter(), cpu_s(server)
            while time.perf_counter() < began + length:
                for key, _ in selector.select(1):
                    more: Callable[[], float | None] = key.data
                    latency = more()
                    if latency is not None:
                        latencies.append(latency)
    took = time.perf_counter() - began
    print(json.dumps({"latencies": latencies, "took": took, "used": cpu_s(server) - used}))
    return 0


class Connection:
    """One client: a request is sent when the answer to the one before is here."""

    def __init__(self, sock: socket.socket, request: bytes, wanted: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self._request, self._wanted = sock, request, wanted
        self._seen, self._size, self._began = b"", 0, 0.0

    def send(self) -> None:
        self._seen, self._size = b"", 0
        self._began = time.perf_counter()
        self.sock.sendall(self._request)

    def more(self) -> float | None:
        """Takes what has come; the latency, if that was all of an answer."""
        self._seen += self.sock.recv(1 << 20)
        if not self._size:
            head, found, _ = self._seen.partition(b"\r\n\r\n")
            if not found:
                return None
            assert head.startswith(b"HTTP/1.1 200 "), self._seen
            self._size = len(head) + 4 + int(head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
        if len(self._seen) < self._size:
            return None
        latency = time.perf_counter() - self._began
        seen = np.frombuffer(self._seen[self._size - self._wanted.nbytes : self._size], np.float32)
        assert np.allclose(seen, self._wanted, rtol=1e-3, atol=1e-3), "another answer than the session's"
        self.send()
        return latency


def sample(predictor: Predictor) -> dict[str, Any]:
    """One golden sample."""
    return {name: np.ascontiguousarray(array[:1]) for name, array in predictor.package.golden_inputs.items()}


def resnet18(folder: Path) -> Path:
    """A package of torchvision's ResNet-18 at 224 px; its weights are random."""
    import torch
    import torchvision

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = torchvision.models.resnet18()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            pixels: torch.Tensor = self.network(images.permute(0, 3, 1, 2).float() / 127.5 - 1)
            return pixels

    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)
    network, file = Network().eval(), folder / "model.onnx"
    torch.onnx.export(
        network,
        (torch.from_numpy(images),),
        str(file),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        external_data=False,
        dynamo=True,
    )
    with torch.no_grad():
        logits = network(torch.from_numpy(images)).numpy()
    task: Task = image_classification(Framing(224, 224, 3), [str(i) for i in range(1000)])
    columns = {"label": np.zeros(4, np.int64), "teacher": np.zeros(4, np.int64)}
    contents = PackageContents(
        task=task,
        metadata={
            "name": "resnet18",
            "version": "0",
            "target": {"name": "cpu-x86_64", "kind": "cpu", "title": "any x86-64"},
            "preprocessing": {"height": 224, "width": 224, "channels": 3, "resize": "bilinear"},
            "precision": {"plan": "fp32", "style": "cpu", "layers": {}},
            "execution": {"exact_qdq": False},
            "recipe": {"seed": 0},
            "budgets": {"max_drop": 0.02, "confidence": 0.95, "max_latency_p90_ms": 0},
            "accuracy": {"verdict": "unknown"},
        },
        model=file.read_bytes(),
        golden_inputs={"images": images},
        golden_outputs={"logits": logits},
        tolerances={"logits": Tolerance(1e-2, 1e-2)},
        reference=make_reference(task, {"images": images}, columns),
        manifest=b'{"schema": 1}\n',
        model_card="# ResNet-18, random weights\n",
    )
    path = folder / "resnet18.dlx"
    write_archive(path, assemble(contents))
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
