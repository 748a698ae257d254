"""Tokenizers: trained on the training split, kept as ``tokenizer.json``, and what they make of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from dlx_deploy.errors import DataError, EnvironmentMissing
from dlx_deploy.extras import install_command

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["PAD", "Kind", "encode_all", "load_tokenizer", "pad_id", "train_tokenizer"]

Kind = Literal["bytes", "words"]
PAD, UNKNOWN = "[PAD]", "[UNK]"


def train_tokenizer(texts: Sequence[str], kind: Kind, vocabulary: int) -> bytes:
    """A ``tokenizer.json`` of at most ``vocabulary`` tokens; the same texts give the same bytes. Padding is token 0.

    ``bytes``: byte-level BPE (Radford et al. 2019), which knows every text. ``words``: lower-cased words and
    punctuation, the most frequent first; others become ``[UNK]``.

    Raises:
        EnvironmentMissing: the tokenizers library is not installed.
    """
    _require()
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=[PAD], initial_alphabet=sorted(alphabet), show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordLevelTrainer(vocab_size=vocabulary, special_tokens=[PAD, UNKNOWN], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return bytes(tokenizer.to_str(), "utf-8")


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in ``path``.

    Raises:
        DataError: it cannot be read, has no padding token, or has numbers without a token.
        EnvironmentMissing: the tokenizers library is not installed.
    """
    _require()
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise DataError(f"{path}: the tokenizer cannot be read ({e.strerror}); it is a tokenizer.json") from e
    except Exception as e:  # the library raises plain Exception
        raise DataError(f"{path}: not a tokenizer.json of the tokenizers library ({e})") from e
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if pad_id(tokenizer) is None:
        raise DataError(f"{path}: the tokenizer has no token {PAD!r}, '<pad>' or '<|pad|>'; add one to pad with")
    size, last = tokenizer.get_vocab_size(), max(tokenizer.get_vocab().values())
    if last >= size:
        raise DataError(f"{path}: {size} tokens are numbered up to {last}; number them 0 to {size - 1}, without gaps")
    return tokenizer


def pad_id(tokenizer: Tokenizer) -> int | None:
    """The number of the padding token, if there is one."""
    numbers = (tokenizer.token_to_id(name) for name in (PAD, "<pad>", "<|pad|>"))
    return next((i for i in numbers if i is not None), None)


def encode_all(
    tokenizer: Tokenizer, texts: Sequence[str], max_length: int, truncate: bool, where: str
) -> npt.NDArray[np.int32]:
    """int32[N, L]: the tokens of ``texts``, padded to the longest; ``where`` names the split in errors.

    Raises:
        DataError: a text gives no token or the padding token, or is longer than ``max_length`` tokens and must not
            be cut.
    """
    encoded = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    empty = [i for i, ids in enumerate(encoded) if not ids]
    if empty:
        raise DataError(f"{where}: {len(empty)} texts give no token; the first: {texts[empty[0]]!r}; remove them")
    padding = pad_id(tokenizer) or 0
    padded = [i for i, ids in enumerate(encoded) if padding in ids]
    if padded:
        raise DataError(
            f"{where}: {len(padded)} texts hold {tokenizer.id_to_token(padding)!r}, which may only follow a text's "
            f"end; the first: {_short(texts[padded[0]])!r}; write it otherwise, or remove them"
        )
    long = [i for i, ids in enumerate(encoded) if len(ids) > max_length]
    if long and not truncate:
        raise DataError(
            f"{where}: {len(long)} of {len(texts)} texts have more than data.max_length = {max_length} tokens; the "
            f"first has {len(encoded[long[0]])}: {_short(texts[long[0]])!r}; raise data.max_length, or cut them with "
            "data.truncate = true"
        )
    width = min(max(len(ids) for ids in encoded), max_length)
    tokens = np.full((len(encoded), width), padding, dtype=np.int32)
    for row, ids in zip(tokens, encoded, strict=True):
        row[: len(ids)] = ids[:width]
    return tokens


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


def _require() -> None:
    try:
        import tokenizers  # noqa: F401
    except ImportError as e:
        raise EnvironmentMissing(f"texts need the tokenizers library; {install_command('build')}") from e
