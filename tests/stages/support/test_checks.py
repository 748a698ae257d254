"""What is known of networks without torch."""

from __future__ import annotations

import pytest

from dlx_deploy.nn.models import names
from dlx_deploy.nn.models.registry import HF, TIMM, VIT, model_names
from dlx_deploy.nn.models.resnet_cifar import DEPTHS
from dlx_deploy.nn.models.sequence import SEQUENCE_DEFAULTS


def test_the_names_known_without_torch_are_those_known_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sorted({*names.image_models(), *names.text_models()}) == model_names()
    assert (tuple(DEPTHS), VIT, TIMM, HF) == (names.CIFAR, names.VIT, names.TIMM, names.HF)
    assert names.text_models() == tuple(sorted(SEQUENCE_DEFAULTS))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert names.image_models() == ()  # then the build says it
