"""Which path answers what: the protocol's endpoints, and those of this server's own."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Callable, Dict, Optional, Tuple
from urllib.parse import parse_qsl

from ..words import shortened
from .access import Access
from .asked import Asked, parse_asked
from .inference import infer, predict
from .messages import Head, Refused, Request, Response, json_response
from .models import Models, Served
from .reading import read_asked, read_samples

__all__ = ["Routes"]

Answer = Callable[[Request], Response]
NAME = "dlx-deploy"
EXTENSIONS = ("binary_tensor_data", "model_repository", "parameters")
READ, WRITE = ("GET", "HEAD"), ("POST",)
MAX_TOP_DIGITS = 9


class Routes:
    """What answers the requests of a server; ``version`` is that of this runtime."""

    def __init__(self, models: Models, access: Access, version: str) -> None:
        self._models, self._access, self._version = models, access, version
        self._draining = threading.Event()
        self._fixed: Dict[Tuple[str, ...], Tuple[Tuple[str, ...], Answer]] = {
            ("v2",): (READ, self._server),
            ("v2", "health", "live"): (READ, lambda request: json_response({"live": True})),
            ("v2", "health", "ready"): (READ, self._ready),
            ("v2", "models"): (READ, self._index),
            ("v2", "repository", "index"): ((*READ, *WRITE), self._index),
        }

    def close(self) -> None:
        """From now on it is not ready: a balancer sends others elsewhere, while what has begun is answered."""
        self._draining.set()

    def admit(self, head: Head) -> None:
        """Refuses what needs no body to be refused.

        Raises:
            Refused: 401, 403, 404, 405.
        """
        self._access.check(head)
        methods, _ = self._find(head.path)
        if head.method not in methods:
            raise Refused(405, f"{shortened(head.method)} is not for this path", ("Allow", ", ".join(methods)))

    def answer(self, request: Request) -> Response:
        """The answer to a request that was admitted.

        Raises:
            Refused: there is none, and why.
        """
        return self._find(request.head.path)[1](request)

    def _find(self, path: Tuple[str, ...]) -> Tuple[Tuple[str, ...], Answer]:
        if path in self._fixed:
            return self._fixed[path]
        if path[:2] != ("v2", "models") or len(path) < 3:
            raise Refused(404, f"there is nothing at {shortened('/' + '/'.join(path))}; v2 says what this server is")
        version, rest = (path[4], path[5:]) if path[3:4] == ("versions",) and len(path) > 4 else (None, path[3:])
        actions: Dict[Tuple[str, ...], Tuple[Tuple[str, ...], Callable[[Served, Request], Response]]] = {
            (): (READ, self._metadata),
            ("ready",): (READ, self._model_ready),
            ("infer",): (WRITE, _infer),
            ("predict",): (WRITE, _predict),
        }
        if rest not in actions:
            raise Refused(404, f"there is nothing at {shortened('/'.join(rest))} of a model; infer and predict are")
        methods, action = actions[rest]
        served = self._models.find(path[2], version)
        return methods, lambda request: action(served, request)

    def _server(self, request: Request) -> Response:
        return json_response({"name": NAME, "version": self._version, "extensions": list(EXTENSIONS)})

    def _ready(self, request: Request) -> Response:
        ready = not self._draining.is_set()
        return json_response({"ready": ready}, 200 if ready else 503)

    def _index(self, request: Request) -> Response:
        state = "UNAVAILABLE" if self._draining.is_set() else "READY"
        known = [{"name": one.name, "version": one.version, "state": state} for one in self._models.all()]
        return json_response(known)

    def _metadata(self, served: Served, request: Request) -> Response:
        return json_response(served.metadata(self._models.versions(served.name)))

    def _model_ready(self, served: Served, request: Request) -> Response:
        ready = not self._draining.is_set()
        return json_response({"name": served.name, "ready": ready}, 200 if ready else 503)


def _infer(served: Served, request: Request) -> Response:
    return infer(served, parse_asked(request.head, request.body))


def _predict(served: Served, request: Request) -> Response:
    """Of a request as for ``infer``, or of a body that is one sample itself, as its Content-Type says."""
    media = request.head.headers.get("content-type", "").partition(";")[0].strip().lower()
    own = str(getattr(served.predictor.package.task.inputs, "media", ""))
    if own and media.partition("/")[0] == own.partition("/")[0]:
        asked = Asked(None, (), None, top=_top(request.head.query))
        return predict(served, asked, read_samples(served, [bytes(request.body)], report=False, keep=True))
    if media.partition("/")[0] in ("image", "text", "audio", "video", "multipart"):
        takes = own or "tensors alone"
        raise Refused(415, f"Content-Type is {shortened(media)}; the model takes {takes}, or a request as infer does")
    asked = parse_asked(request.head, request.body)
    if asked.outputs is not None:
        raise Refused(400, "predict decodes all outputs; leave outputs out, or ask infer for tensors")
    top = _top(request.head.query, asked.top)
    return predict(served, replace(asked, top=top), read_asked(served, asked, keep=True))


def _top(query: str, default: int = 1) -> int:
    """How many answers ``?top=5`` asks for."""
    text: Optional[str] = dict(parse_qsl(query)).get("top")
    if text is None:
        return default
    if not text.isdigit() or not text.isascii() or len(text) > MAX_TOP_DIGITS or not int(text):
        raise Refused(400, f"top is {shortened(text)}; must be a whole number, 1 or more")
    return int(text)
