"""Texts as what a network reads: tokens int32[N, L], by the tokenizer that travels in the package."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ..errors import InputError
from ..filenames import IMAGE_SUFFIXES
from ..package.archive import to_json
from ..records import record
from ..strict_json import from_json
from ..untyped import Array
from ..words import shortened
from .arrays import Arrays, Tensor, digests_of, only_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..package.fields import Fields
    from .texts import TextEncoder

__all__ = ["TOKENS", "TextInputs", "Tokens", "read_text_inputs"]

TOKENS = "tokens"
TOKENIZER, GOLDEN_TEXTS = "tokenizer.json", "golden/texts.json"
MAX_TOKEN = 2**31 - 1  # tokens are int32
TEXT_SUFFIXES = (".csv", ".html", ".json", ".jsonl", ".log", ".md", ".rst", ".text", ".tsv", ".txt")


@record
class Tokens:
    """How texts become tokens: ``vocabulary`` is how many tokens there are, ``pad_id`` the one behind a text's end.

    With ``truncate`` texts of more than ``max_length`` tokens are cut, else refused. ``length``: what every text is
    padded to, or ``None`` for the longest of each call.
    """

    vocabulary: int
    pad_id: int
    max_length: int
    truncate: bool
    length: Optional[int] = None


@dataclass(frozen=True)
class TextInputs:
    """Tokens int32[N, L], padded after their ends; ``tokenizer`` is the ``tokenizer.json`` that makes them of texts."""

    tokens: Tokens
    tokenizer: bytes
    samples: Sequence[str] = ()
    verb: str = "classifies"
    noun: str = "texts"
    any_value: bool = False
    media: str = "text/plain"
    _encoders: List[TextEncoder] = field(default_factory=list, repr=False, compare=False)
    """None or one: opened when the first text comes."""
    _unknowns: List[Optional[int]] = field(default_factory=list, repr=False, compare=False)
    """Likewise: what ``_unknown`` found."""

    @property
    def tensors(self) -> Tuple[Tensor, ...]:
        """The one input."""
        return (Tensor(TOKENS, "int32", (self.tokens.length or "length",), "NL"),)

    def fields(self) -> Dict[str, object]:
        """The table of the tokenizer."""
        t = self.tokens
        table = {"vocabulary": t.vocabulary, "pad_id": t.pad_id, "max_length": t.max_length, "truncate": t.truncate}
        return {"tokenizer": table}

    def members(self) -> Dict[str, bytes]:
        """The tokenizer, and the texts behind the golden inputs."""
        return {TOKENIZER: self.tokenizer, GOLDEN_TEXTS: to_json(list(self.samples))}

    def describe(self, batch: Optional[int]) -> str:
        """The input, for people."""
        t = self.tokens
        cut = "longer texts are cut" if t.truncate else "longer texts are refused"
        return f"texts, as tokens int32[{batch or 'N'}, {t.length or 'L'}], at most {t.max_length}; {cut}"

    def read(self, given: object) -> Dict[str, Array]:
        """``given`` (a string, several, or tokens int32[N, L]) as int32[N, L].

        Raises:
            InputError: no texts, one that is empty or too long, or tokens of another dtype or shape.
            BackendMissing: the tokenizers library is not here. PackageError: the tokenizer is damaged.
        """
        texts = only_array(given, TOKENS)
        if isinstance(texts, str):
            texts = [texts]
        if isinstance(texts, np.ndarray) and texts.dtype.kind not in "UO":
            return {TOKENS: self._fitted(texts)}
        if not isinstance(texts, (list, tuple, np.ndarray)) or (isinstance(texts, np.ndarray) and not texts.ndim):
            raise InputError(
                f"texts are a {type(texts).__name__}; must be a str, a list of them, or tokens int32[N, L]"
            )
        return {TOKENS: self._encoder().encode(list(texts))}

    def open_bytes(self, data: bytes, name: str) -> object:
        """The text in ``data``, UTF-8, called ``name`` in messages.

        Raises:
            InputError: it is no UTF-8.
        """
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as e:
            raise InputError(f"{name} is no UTF-8 ({e.reason} at byte {e.start}); give text in UTF-8") from e

    def trim(self, feeds: Arrays) -> Arrays:
        """``feeds`` without columns that are padding in every row, unless the length is fixed."""
        if self.tokens.length:
            return feeds
        block = feeds[TOKENS]
        used = np.flatnonzero((block != self.tokens.pad_id).any(axis=0))
        return {TOKENS: block[:, : int(used[-1]) + 1 if len(used) else 1]}

    def join(self, parts: Sequence[Arrays]) -> Dict[str, Array]:
        """The texts of all ``parts``, padded to the longest."""
        blocks = [part[TOKENS] for part in parts]
        longest = max(block.shape[1] for block in blocks)
        wide = np.full((sum(map(len, blocks)), longest), self.tokens.pad_id, np.int32)
        start = 0
        for block in blocks:
            wide[start : start + len(block), : block.shape[1]] = block
            start += len(block)
        return {TOKENS: wide}

    def digests(self, feeds: Arrays) -> NDArray[np.uint64]:
        """Of each text the digest of its tokens without padding, as little-endian int32."""
        return digests_of(row[row != self.tokens.pad_id].astype("<i4") for row in feeds[TOKENS])

    def features(self, feeds: Arrays) -> Arrays:
        """Of each text, float32[n]: its tokens, their mean number (other words, another mean), and the share of unknown
        ones where the tokenizer has a token for those."""
        tokens = feeds[TOKENS]
        there = tokens != self.tokens.pad_id
        length = np.maximum(there.sum(axis=1), 1).astype(np.float32)
        told = {"length": length, "token_mean": np.where(there, tokens, 0).sum(axis=1) / length}
        unknown = self._unknown()
        return told if unknown is None else {**told, "unknown": (tokens == unknown).sum(axis=1) / length}

    def fault(self, feeds: Arrays) -> Optional[Tuple[str, str]]:
        """Tokens that there are not, or none at all."""
        tokens, most = feeds[TOKENS], self.tokens.vocabulary - 1
        if tokens.size == 0 or tokens.min() < 0 or tokens.max() > most:
            return TOKENS, f"holds other tokens than 0 to {most}, or none"
        return None

    def sample_fault(self, golden: Arrays) -> Optional[str]:
        """That a golden text becomes other tokens here."""
        if not self.samples:
            return None
        tokens, wanted, pad = self.read(list(self.samples))[TOKENS], self.read(golden)[TOKENS], self.tokens.pad_id
        width = min(tokens.shape[1], wanted.shape[1])
        same = (tokens[:, :width] == wanted[:, :width]).all(axis=1)
        same &= (tokens[:, width:] == pad).all(axis=1) & (wanted[:, width:] == pad).all(axis=1)
        if same.all():
            return None
        i = int(np.flatnonzero(~same)[0])
        return (
            f"golden text {i} ({self.samples[i][:60]!r}) gives other tokens than where the package was built "
            f"({int((~same).sum())} of {len(same)} do): try another version of the tokenizers library"
        )

    def check_argument(self, argument: str) -> None:
        """Refuses what is a file, or looks like one: its name would be read as a text.

        Raises:
            InputError: says so, and how to give what is in it.
        """
        remedy = "give its texts, one a line, by --file, or these very words on stdin: echo … | … -"
        if os.path.lexists(argument):
            kind = "folder" if os.path.isdir(argument) else "file"
            raise InputError(
                f"{shortened(argument)} is a {kind} here, and the package {self.verb} texts, not names; {remedy}"
            )
        if not any(c.isspace() for c in argument) and argument.lower().endswith((*TEXT_SUFFIXES, *IMAGE_SUFFIXES)):
            raise InputError(f"{shortened(argument)} looks like a file, and there is none of this name; {remedy}")

    def _unknown(self) -> Optional[int]:
        """The number of the token for what the tokenizer does not know, by ``tokenizer.json``."""
        if not self._unknowns:
            from .texts import unknown_token

            found = unknown_token(self.tokenizer)
            self._unknowns.append(None if found == self.tokens.pad_id else found)
        return self._unknowns[0]

    def _encoder(self) -> TextEncoder:
        if not self._encoders:
            from .texts import TextEncoder

            t = self.tokens
            encoder = TextEncoder(self.tokenizer, t.vocabulary, t.pad_id, t.max_length, t.truncate, t.length)
            self._encoders.append(encoder)
        return self._encoders[0]

    def _fitted(self, tokens: Array) -> NDArray[np.int32]:
        t = self.tokens
        if tokens.dtype != np.int32 or tokens.ndim != 2 or not tokens.size or tokens.shape[1] > t.max_length:
            raise InputError(
                f"tokens are {tokens.dtype}{list(tokens.shape)}; must be int32[N, L], N at least 1, L at most "
                f"{t.max_length}; or give texts"
            )
        if tokens.min() < 0 or tokens.max() >= t.vocabulary:
            raise InputError(
                f"tokens run from {tokens.min()} to {tokens.max()}; must be 0 to {t.vocabulary - 1}, of the package's "
                "own tokenizer; or give texts"
            )
        if not t.length or tokens.shape[1] == t.length:
            return np.ascontiguousarray(tokens)
        wide = np.full((len(tokens), t.length), t.pad_id, np.int32)
        wide[:, : tokens.shape[1]] = tokens
        return wide


def read_text_inputs(field: Fields) -> TextInputs:
    """The input of a package for texts, as ``package.json`` and the package's members have it.

    Raises:
        PackageError: the input has another shape, or a field or file of the tokenizer is missing or of the wrong kind.
    """
    dims = field.tensor("inputs.0").dims
    if len(dims) != 1 or dims[0] not in ("length", *[n for n in dims if isinstance(n, int)]):
        rule = 'must be ["batch" or a size, "length" or a size]'
        raise field.wrong("inputs.0.shape", field.at("inputs.0.shape"), rule)
    length = dims[0] if isinstance(dims[0], int) else None
    vocabulary = field.count("tokenizer.vocabulary", 1, MAX_TOKEN)
    longest = field.count("tokenizer.max_length", 1, MAX_TOKEN)
    if length is not None and length < longest:
        rule = f"its length must be tokenizer.max_length, {longest}"
        raise field.wrong("inputs.0.shape", field.at("inputs.0.shape"), rule)
    pad = field.count("tokenizer.pad_id", 0, vocabulary - 1)
    tokens = Tokens(vocabulary, pad, longest, field.get("tokenizer.truncate", bool), length)
    return TextInputs(tokens, field.member(TOKENIZER), _golden_texts(field))


def _golden_texts(field: Fields) -> Tuple[str, ...]:
    count = field.get("golden.count", int)
    try:
        texts = from_json(field.member(GOLDEN_TEXTS))
    except ValueError as e:
        raise field.damaged(GOLDEN_TEXTS, f"is not JSON ({e})") from e
    if not isinstance(texts, list) or len(texts) != count or not all(isinstance(text, str) for text in texts):
        raise field.damaged(GOLDEN_TEXTS, f"must be a list of {count} texts")
    return tuple(texts)
