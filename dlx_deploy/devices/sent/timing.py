"""ONNX models timed on a board, by the runtime that was put there: what a device's ``latencies`` and ``energy`` are."""

import json
import math
import sys
import time
from importlib import import_module
from typing import Any, Callable, Dict, List

__all__ = ["main"]

MARK = "dlx-deploy-progress "
"""Begins a line on standard error that is for the asker's program."""
EVERY_S = 0.5


def main(argument: Dict[str, Any]) -> Dict[str, Any]:
    """Do ``argument["do"]``: ``latencies``, ``energy`` or ``energy_unknown``."""
    sys.path.insert(0, argument["runtime"])
    errors = import_module("dlx_runtime.errors")
    asked = {"latencies": latencies, "energy": energy, "energy_unknown": energy_unknown}[argument["do"]]
    try:
        return asked(argument)
    except errors.RuntimeFault as e:
        return {"fault": {"kind": type(e).__name__, "said": str(e), "exit_code": e.exit_code}}


def latencies(argument: Dict[str, Any]) -> Dict[str, Any]:
    """Of each model, timed in turn; ``other``: why they say nothing, if so."""
    timing, sampling = import_module("dlx_runtime.timing.models"), import_module("dlx_runtime.timing.sampling")
    timed = opened(argument)
    asked = dict(argument["sampling"])
    asked["max_s"] = math.inf if asked["max_s"] is None else asked["max_s"]
    measured = timing.time_models(timed, sampling.Sampling(**asked), teller())
    return {"measured": plain(measured), "other": others(timed)}


def energy(argument: Dict[str, Any]) -> Dict[str, Any]:
    """Of the one model."""
    timing, sensors = import_module("dlx_runtime.timing.models"), import_module("dlx_runtime.power.sensors")
    timed = opened(argument)
    reading = timing.model_energy(next(iter(timed.values())), sensors.find_sensors())
    return {"reading": plain(reading), "other": others(timed) if reading.energy else ""}


def energy_unknown(argument: Dict[str, Any]) -> Dict[str, Any]:
    """Why the energy of a processor cannot be measured."""
    return {"why": import_module("dlx_runtime.power.sensors").find_sensors().missing(argument["processor"])}


def opened(argument: Dict[str, Any]) -> Dict[str, Any]:
    """A session of each model, with its feed: arrays by name in a file."""
    numpy, timing = import_module("numpy"), import_module("dlx_runtime.timing.models")
    timed = {}
    for name, one in argument["models"].items():
        with open(one["model"], "rb") as stream:
            model = stream.read()
        with numpy.load(one["feed"], allow_pickle=False) as file:
            feed = dict(file)
        timed[name] = timing.TimedModel(model, argument["threads"], lambda session, feed=feed: feed)
    return timed


def plain(value: Any) -> Dict[str, Any]:
    """What the runtime measured, as plain values."""
    from dataclasses import asdict  # Python 3.6 has none, and is to be told of in words

    return asdict(value)


def others(timed: Dict[str, Any]) -> str:
    """Why the timings say nothing, if so."""
    other_answer = import_module("dlx_runtime.timing.models").other_answer
    found: List[str] = [why for why in (other_answer(name, one) for name, one in timed.items()) if why]
    return "; ".join(found)


def teller() -> Callable[..., None]:
    """What tells the asker now and then how far it is."""
    told = [-math.inf]

    def tell(done: float, total: float, text: str = "") -> None:
        now = time.monotonic()
        if now - told[0] >= EVERY_S:
            told[0] = now
            sys.stderr.write(MARK + json.dumps([done, total, text]) + "\n")
            sys.stderr.flush()

    return tell
