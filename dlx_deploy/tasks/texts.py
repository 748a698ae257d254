"""Texts as what networks read: whatever they answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from msgspec.structs import replace

from dlx_deploy.config import Data, Export, Training
from dlx_deploy.nn.training.views import Views
from dlx_deploy.targets import Profile

if TYPE_CHECKING:
    from torch import nn

    from dlx_deploy.nn.data.dataset import Dataset
    from dlx_deploy.nn.data.headers import TextHeader
    from dlx_deploy.nn.export.spec import Spec
    from dlx_deploy.nn.models.families import Reads
    from dlx_deploy.nn.models.inputs import InputSpec, TokenInput
    from dlx_deploy.nn.models.outputs import Outputs
    from dlx_deploy.nn.pruning.channels import PruneReport
    from dlx_deploy.nn.pruning.order import Order
    from dlx_deploy.nn.training.batches import Feed

__all__ = ["Texts", "text_header"]


def text_header(data: Dataset) -> TextHeader:
    """The header of texts."""
    from dlx_deploy.nn.data.headers import TextHeader

    assert isinstance(data.header, TextHeader)
    return data.header


@dataclass(frozen=True)
class Texts:
    """Tokens int32[N, L], padded after their ends, in a data set and a package; int64 for a network."""

    noun: str = "texts"
    reads: Reads = "texts"
    keys: frozenset[str] = frozenset({"tokenizer", "vocabulary", "max_length", "truncate"})
    libraries: tuple[str, ...] = ("tokenizers",)
    seen_in_calibration: bool = False

    def check(self, data: Data) -> None:
        """Nothing: every size has a default."""

    def check_training(self, name: str, section: Training) -> None:
        """Nothing: a batch of one text is a batch."""

    def check_samples(self, name: str, section: Training, count: int) -> None:
        """Nothing: batches are as large as their tokens."""

    def check_export(self, export: Export, kind: str) -> None:
        """Nothing: texts have a length."""

    def exported(self, export: Export, profile: Profile) -> Export:
        """An engine is built for one length; ONNX Runtime computes no more than a text needs."""
        if export.length != "auto":
            return export
        return replace(export, length="fixed" if profile.builds_engines else "dynamic")

    def views(self, section: Training) -> Views:
        """One: texts are not augmented."""
        return Views()

    def expected(self, data: Data) -> TokenInput:
        """A vocabulary of the size that was asked for."""
        from dlx_deploy.nn.models.inputs import TokenInput

        return TokenInput(data.vocabulary, data.max_length)

    def spec(self, data: Dataset) -> TokenInput:
        """The tokenizer's vocabulary."""
        from dlx_deploy.nn.models.inputs import TokenInput

        header = text_header(data)
        return TokenInput(header.vocabulary, header.max_length, header.pad_id)

    def trains_alone(self, data: Dataset) -> bool:
        """Never: texts have no small size."""
        return False

    def feed(self, data: Dataset) -> Feed:
        """No longer than the longest of a batch."""
        from dlx_deploy.nn.training.batches import TokenFeed

        return TokenFeed(text_header(data).pad_id)

    def pruned(self, model: nn.Module, spec: InputSpec, order: Order) -> tuple[nn.Module, PruneReport]:
        """Heads and feed-forward channels are removed; of networks that others wrote, what can be followed."""
        from dlx_deploy.nn.models.inputs import TokenInput
        from dlx_deploy.nn.pruning.channels import prune_channels
        from dlx_deploy.nn.pruning.heads import has_heads, prune_heads

        assert isinstance(spec, TokenInput)
        return prune_heads(model, spec, order) if has_heads(model) else prune_channels(model, spec, order)

    def settle(self, model: nn.Module, data: Dataset) -> None:
        """Nothing: layer normalisation keeps no statistics."""

    def export_spec(self, spec: InputSpec, export: Export, opset: int, data: Dataset | None, outputs: Outputs) -> Spec:
        """Tokens, of any length or always the longest."""
        from dlx_deploy.nn.export.spec import TextSpec
        from dlx_deploy.nn.models.inputs import TokenInput

        assert isinstance(spec, TokenInput)
        length: Literal["fixed", "dynamic"] = "fixed" if export.length == "fixed" else "dynamic"
        return TextSpec(spec.max_length, spec.pad_id, outputs, opset=opset, batch=export.batch, length=length)

    def preprocessing(self, data: Dataset) -> dict[str, Any]:
        """The tokenizer travels along."""
        return {"tokenizer": "tokenizer.json", "mask": "in the graph"}
