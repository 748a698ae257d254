"""Networks of other collections: image classifiers of timm, sequence classifiers of Hugging Face."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from dlx_deploy.errors import ConfigError, EnvironmentMissing
from dlx_deploy.extras import install_command
from dlx_deploy.nn.models.inputs import ImageInput, TokenInput

__all__ = [
    "HuggingFaceClassifier",
    "build_hf",
    "build_timm",
    "check_timm",
    "hf_config",
    "hf_made_config",
    "hf_network",
    "hf_values",
]

_NEAR = 4
"""So many names are offered where one is unknown."""


def build_timm(name: str, arguments: Mapping[str, Any], classes: int, spec: ImageInput) -> nn.Module:
    """timm's image classifier ``name``, untrained: logits [N, classes] of images [N, C, H, W].

    ``arguments`` go to ``timm.create_model``; ``img_size`` is set for networks that have one.

    Raises:
        EnvironmentMissing: timm is not installed.
        ConfigError: it has no such network, or that does not take the arguments.
    """
    check_timm(name)
    import timm

    given: dict[str, Any] = {"num_classes": classes, "in_chans": spec.channels, **arguments}
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, **given)
        # Networks with patches have a size, but for those that reduce images by convolutions (tiny_vit, shvit).
        sized = hasattr(model, "patch_embed") and "img_size" in inspect.signature(type(model).__init__).parameters
        if sized and "img_size" not in given:
            size = (spec.height, spec.width)
            model = timm.create_model(name, pretrained=False, img_size=size, **given)
    except (TypeError, ValueError, RuntimeError, AssertionError) as e:
        raise ConfigError(f"timm:{name}: timm does not build it with arguments {given}: {e}") from e
    return model


def check_timm(name: str) -> None:
    """Nothing, if timm has a network ``name``.

    Raises:
        EnvironmentMissing: timm is not installed.
        ConfigError: it has none.
    """
    try:
        import timm
    except ImportError as e:
        raise EnvironmentMissing(f"model 'timm:{name}' needs timm ({e}); {install_command('timm')}") from e
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=_NEAR, cutoff=0.5)
        raise ConfigError(f"timm has no model {name!r}; it has {', '.join(near) or 'those of timm.list_models()'}")


class HuggingFaceClassifier(nn.Module):
    """A Hugging Face sequence classifier that reads padded tokens [N, L] and gives logits [N, classes]."""

    def __init__(self, network: nn.Module, pad_id: int) -> None:
        super().__init__()
        self.network, self.pad_id = network, pad_id

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [N, classes] of ``tokens`` [N, L]."""
        logits: Tensor = self.network(input_ids=tokens, attention_mask=(tokens != self.pad_id).long()).logits
        return logits


def hf_config(name: str) -> dict[str, Any]:
    """The configuration of the Hugging Face model ``name``: a folder with ``config.json``, or a name on the hub.

    Raises:
        EnvironmentMissing: transformers is not installed, or the hub cannot be reached.
        ConfigError: there is no such model.
    """
    transformers = _transformers(name)
    try:
        config: dict[str, Any] = transformers.AutoConfig.from_pretrained(name).to_dict()
    except OSError as e:
        text = str(e).split("\n", 1)[0]
        if "connect" in str(e).lower() or "offline" in str(e).lower():
            raise EnvironmentMissing(
                f"model 'hf:{name}' cannot be fetched ({text}); download it elsewhere and give its folder as hf:PATH"
            ) from e
        raise ConfigError(f"model 'hf:{name}': no such model ({text}); give a folder with config.json") from e
    except ValueError as e:
        raise ConfigError(f"model 'hf:{name}': not a configuration of transformers ({e})") from e
    return config


def build_hf(name: str, arguments: Mapping[str, Any], classes: int, spec: TokenInput) -> nn.Module:
    """The Hugging Face sequence classifier ``name``, untrained, for tokens [N, L].

    ``arguments`` change its configuration; with ``config`` (what ``hf_config`` gave) nothing is looked up.

    Raises:
        EnvironmentMissing: transformers is not installed, or the configuration cannot be fetched.
        ConfigError: no such model, or one for another vocabulary or for shorter texts.
    """
    values = hf_values(name, arguments)
    pad = values.get("pad_token_id")
    if pad is not None and pad != spec.pad_id:
        raise ConfigError(
            f"model 'hf:{name}' pads with token {pad} and the data with {spec.pad_id}, a tokenizer that does not "
            "match; set data.tokenizer to the model's tokenizer.json, or pad_token_id in its arguments"
        )
    config = hf_made_config(name, arguments, {**values, "num_labels": classes, "pad_token_id": spec.pad_id})
    if getattr(config, "is_encoder_decoder", False):
        raise ConfigError(
            f"model 'hf:{name}': a {config.model_type!r} is an encoder with a decoder, whose classifier reads the "
            "answer at the end token that each text must have; give an encoder, as bert, distilbert or deberta-v2"
        )
    if config.vocab_size != spec.vocabulary:
        raise ConfigError(
            f"model 'hf:{name}' has {config.vocab_size} tokens and the data's tokenizer {spec.vocabulary}, a tokenizer "
            "that does not match; set data.tokenizer to the model's tokenizer.json, or vocab_size in its arguments"
        )
    network = _sequence_classifier(config, name)
    longest = _longest(config, network)
    if longest is not None and longest < spec.max_length:
        raise ConfigError(
            f"model 'hf:{name}' takes at most {longest} tokens; data.max_length is {spec.max_length}: lower it"
        )
    return HuggingFaceClassifier(network, spec.pad_id)


def hf_values(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the Hugging Face model ``name``, as ``arguments`` change it; looked up if they lack it.

    Raises:
        EnvironmentMissing, ConfigError: see ``hf_config``.
    """
    given = dict(arguments)
    stored = given.pop("config", None)
    return {**(stored if stored is not None else hf_config(name)), **given}


def hf_made_config(name: str, arguments: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """``values``, the configuration of ``name`` with ``arguments`` in it, as transformers' own object.

    Raises:
        EnvironmentMissing: transformers is not installed. ConfigError: they are none.
    """
    transformers = _transformers(name)
    dropped = ("id2label", "label2id", "transformers_version", "architectures", "attn_implementation", "model_type")
    kind = values.get("model_type")
    try:
        return transformers.AutoConfig.for_model(kind, **{k: v for k, v in values.items() if k not in dropped})
    except Exception as e:  # what transformers' checks of values that a user chose raise, which differs by version
        given = {key: value for key, value in arguments.items() if key != "config"}
        raise ConfigError(
            f"model 'hf:{name}': {kind!r} with {given} is not a configuration of transformers: {_first_line(e)}"
        ) from e


def hf_network(
    auto: Any, config: Any, name: str, noun: str, attentions: Sequence[str] = ("sdpa", "eager")
) -> nn.Module:
    """The untrained network of ``config`` that ``auto``, a class of transformers for a ``noun``, makes.

    It has the first of the ``attentions`` that its kind knows: torch's own, or the plain one.

    Raises:
        ConfigError: it does not make one.
    """
    if type(config) not in auto._model_mapping:
        raise ConfigError(f"model 'hf:{name}': transformers has no {noun} of type {config.model_type!r}")
    if config.architectures is None:  # a type that several classes make is looked up there (DeiT)
        config.architectures = []
    for attention in attentions:
        try:
            network: nn.Module = auto.from_config(config, attn_implementation=attention)
            break
        except Exception as e:  # the constructor of any network of transformers, with sizes that a user chose
            if attention != attentions[-1] and "attention implementation" in str(e):
                continue
            raise ConfigError(
                f"model 'hf:{name}': transformers does not build a {config.model_type!r} with this configuration: "
                f"{type(e).__name__}: {_first_line(e)}"
            ) from e
    return network


def _sequence_classifier(config: Any, name: str) -> nn.Module:
    network = hf_network(_transformers(name).AutoModelForSequenceClassification, config, name, "sequence classifier")
    if "attention_mask" not in inspect.signature(network.forward).parameters:
        raise ConfigError(
            f"model 'hf:{name}': a {config.model_type!r} takes no attention mask, so that padding would change its "
            "answers; give one that does, as bert"
        )
    return network


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _longest(config: Any, network: nn.Module) -> int | None:
    """The most tokens that the network takes, if its configuration bounds them.

    RoBERTa's kind counts positions from after its padding token, so it has fewer than its configuration says.
    """
    positions: int | None = getattr(config, "max_position_embeddings", None)
    for name, module in network.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            positions = module.num_embeddings - module.padding_idx - 1
    return positions


def _transformers(name: str) -> Any:
    try:
        import transformers
    except ImportError as e:
        raise EnvironmentMissing(f"model 'hf:{name}' needs transformers ({e}); {install_command('hf')}") from e
    return transformers
