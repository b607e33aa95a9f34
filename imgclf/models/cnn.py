"""A plain CNN: blocks of convolution, batch normalisation (optional), ReLU and max-pooling."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.models import layers
from imgclf.models.backbone import Backbone, Model


class CNN(Backbone):
    """Blocks of (conv, norm, ReLU, pool), one for each width. Convolutions are He-initialised and have biases where no norm follows.

    Widths (32, 32, 64) with padding "valid" or "same", kernel 3, pool 2 and norm "none" are those of the two
    tutorials' networks in `configs/openimages_cnn.py` and `configs/sports_cnn.py`.
    """

    def __init__(
        self,
        *,
        widths: tuple[int, ...] = (32, 64, 128),
        kernel: int = 3,
        padding: str = "same",
        pool: int = 2,
        norm: str = "batch",
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.blocks, self.kernel, self.pool, self.norm = len(widths), kernel, pool, norm == "batch"
        self.padding = layers.same_padding(kernel) if padding == "same" else ((0, 0), (0, 0))
        self.features = widths[-1]
        channels = 3
        for i, width in enumerate(widths):
            conv = layers.Conv(channels, width, kernel, padding=self.padding, use_bias=not self.norm, dtype=dtype, rngs=rngs)
            setattr(self, f"conv{i}", conv)
            if self.norm:
                setattr(self, f"bn{i}", layers.BatchNorm(width, rngs=rngs))
            channels = width

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the maps of images of this size; below 1 where they are too small."""

        def size(pixels: int) -> int:
            for _ in range(self.blocks):
                pixels = (pixels + sum(self.padding[0]) - self.kernel + 1) // self.pool
            return pixels

        return size(height), size(width)

    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        x = image
        for i in range(self.blocks):
            conv = getattr(self, f"conv{i}")
            if self.norm:
                x = getattr(self, f"bn{i}")(conv(x), train=train)
                x = (
                    layers.max_pool_bias_relu(x, jnp.zeros(x.shape[-1], x.dtype))
                    if self.pool == 2
                    else layers.max_pool(jax.nn.relu(x), self.pool, self.pool)
                )
            elif self.pool == 2:
                x = conv.max_pool_relu(x)
            else:
                x = layers.max_pool(jax.nn.relu(conv(x)), self.pool, self.pool)
        return x


MODELS = {
    "cnn": Model(CNN, 222_472),
}
