"""Texts as tokens. Training and deployment both use the tokenizer in the package, so that they agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, List, Optional, Sequence

import numpy as np

from ..errors import BackendMissing, InputError, PackageError
from ..strict_json import from_json
from ..words import said, shortened
from .text_files import read_texts

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TextEncoder", "read_texts", "unknown_token"]

PANIC = "PanicException"


class TextEncoder:
    """A ``tokenizer.json`` that is ready to encode.

    ``length``: what every text is padded to, or ``None`` for the longest of each call. With ``truncate`` longer texts
    than ``max_length`` tokens are cut, else refused.

    Raises:
        BackendMissing: the tokenizers library is not here.
        PackageError: no tokenizer, or one with another number of tokens than ``vocabulary``.
    """

    def __init__(
        self, tokenizer: bytes, vocabulary: int, pad_id: int, max_length: int, truncate: bool, length: Optional[int]
    ) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as e:
            raise BackendMissing(f"tokenizers cannot be imported ({e}); install it with: pip install tokenizers") from e
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer.decode("utf-8"))
        except BaseException as e:  # the library raises plain Exception, and BaseException where its own code panics
            if not isinstance(e, Exception) and type(e).__name__ != PANIC:
                raise
            raise PackageError(f"tokenizer.json is no tokenizer ({said(e)}); build the package again") from e
        if self._tokenizer.get_vocab_size() != vocabulary:
            raise PackageError(
                f"tokenizer.json knows {self._tokenizer.get_vocab_size()} tokens and the model {vocabulary}; they must "
                "agree: build the package again with the tokenizer that the model was trained with"
            )
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._vocabulary = vocabulary
        self.pad_id, self.max_length, self.truncate, self.length = pad_id, max_length, truncate, length

    def encode(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """The tokens of ``texts``, int32[N, L], padded after their ends.

        Raises:
            InputError: no texts, an empty one, one that is no string, or one that is too long.
        """
        _check(texts)
        encoded = self._encoded(list(texts))
        for i, ids in enumerate(encoded):
            if ids and max(ids) >= self._vocabulary:
                raise PackageError(
                    f"tokenizer.json gives token {max(ids)}; the model knows 0 to {self._vocabulary - 1}: build the "
                    "package again with the tokenizer that the model was trained with"
                )
            if not ids:
                raise InputError(f"text {i} ({shortened(texts[i])}) has no token that the model knows; give words")
            if self.pad_id in ids:
                raise InputError(
                    f"text {i} ({shortened(texts[i])}) holds the padding token, which means no text; take it out"
                )
            if len(ids) > self.max_length and not self.truncate:
                raise InputError(
                    f"text {i} has {len(ids)} tokens; the model takes at most {self.max_length}: shorten it, or build "
                    "the package with data.truncate = true"
                )
        width = self.length or min(max(len(ids) for ids in encoded), self.max_length)
        tokens = np.full((len(encoded), width), self.pad_id, np.int32)
        for row, ids in zip(tokens, encoded):
            kept = ids[: min(width, self.max_length)]
            row[: len(kept)] = kept
        return tokens

    def _encoded(self, texts: List[str]) -> List[List[int]]:
        try:
            return [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]
        except BaseException as e:  # as above
            if not isinstance(e, Exception) and type(e).__name__ != PANIC:
                raise
            raise PackageError(f"tokenizer.json cannot be used ({said(e)}); build the package again") from e


def _check(texts: Sequence[str]) -> None:
    if not len(texts):
        raise InputError("there are no texts; give at least one")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {i} is a {type(text).__name__}; must be a str")
        if not text.strip():
            raise InputError(f"text {i} is empty; give at least one word")
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise InputError(f"text {i} ({shortened(text)}) holds half a character; give text in UTF-8")


def unknown_token(tokenizer: bytes) -> Optional[int]:
    """The token that stands for what ``tokenizer``, a ``tokenizer.json``, does not know; ``None``: it has none."""
    try:
        table = from_json(tokenizer)
    except ValueError:
        return None
    model = table.get("model") if isinstance(table, dict) else None
    if not isinstance(model, dict):
        return None
    vocabulary, name = model.get("vocab"), model.get("unk_token")
    number = vocabulary.get(name) if isinstance(vocabulary, dict) and isinstance(name, str) else model.get("unk_id")
    return number if isinstance(number, int) and not isinstance(number, bool) else None
