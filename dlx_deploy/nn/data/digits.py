"""scikit-learn's 1,797 scanned digits, which ship inside that package."""

from __future__ import annotations

import numpy as np

from dlx_deploy.errors import EnvironmentMissing
from dlx_deploy.extras import install_command
from dlx_deploy.nn.data.dataset import Images, Labels

__all__ = ["CLASSES", "SIDE", "load_digits"]

CLASSES = tuple("0123456789")
SIDE = 8


def load_digits(channels: int) -> tuple[Images, Labels]:
    """The digits as images uint8[1797, 8, 8, channels], NHWC, 0..255, and labels int64[1797].

    The scans count 0..16 per pixel; with several channels each holds the same.

    Raises:
        EnvironmentMissing: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as e:
        raise EnvironmentMissing(f"data.kind 'digits' needs scikit-learn; {install_command('build')}") from e
    digits = datasets.load_digits()
    images = np.rint(np.asarray(digits.images, dtype=np.float64) * (255 / 16)).astype(np.uint8)
    return np.repeat(images[..., None], channels, axis=3), np.asarray(digits.target, dtype=np.int64)
