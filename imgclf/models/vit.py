"""Vision Transformers: Dosovitskiy et al., 2021 (https://arxiv.org/abs/2010.11929), and the self-supervised and contrastive ones since.

An image is cut into square patches, each a token. The kinds differ in what else there is:

- ViT, here by the recipes of Steiner et al., 2021 (https://arxiv.org/abs/2106.10270): a class token, learned position embeddings;
- DINOv2 with registers, Oquab et al., 2023 (https://arxiv.org/abs/2304.07193), Darcet et al., 2023 (https://arxiv.org/abs/2309.16588):
  four more tokens that belong to no place, and layer scale;
- DINOv3, Siméoni et al., 2025 (https://arxiv.org/abs/2508.10104): rotary positions instead of learned ones;
- SigLIP 2's image tower, Tschannen et al., 2025 (https://arxiv.org/abs/2502.14786): no class token, attention pooling.

Parameter paths: `embedding/{patch,class_token,registers,position}`, `blocks/0/{norm1,attention,layer_scale1,norm2,mlp,layer_scale2}`,
`norm`, `attention_pool`; see transformer.py for what is inside.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from imgclf.errors import UserError
from imgclf.models import forms, layers
from imgclf.models.backbone import Backbone, Model
from imgclf.models.blocks import Stage
from imgclf.models.pixelwise import layer_norm
from imgclf.models.transformer import MLP, Attention, AttentionPool, Block, Rotation, SwiGLU, axial_rotation, small_normal
from imgclf.models.weights.conversion import HALF, Rule, Weights, conv, linear, same, undone_by

_POOLS = ("token", "average", "attention")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What a Vision Transformer is like; `config.model.variant` can change each of these, such as pool='average'.

    Attributes:
      width: channels of a token.
      heads: of the attention, which share the width among them.
      depth: blocks.
      patch: side of a patch in pixels.
      grid: side of the square of patches that the learned position embeddings are for; 0 = rotary positions instead.
      class_token: whether a token stands for the whole image.
      class_position: whether the class token has a position embedding, too.
      registers: further tokens that belong to no place of the image.
      qkv_bias: whether queries, keys and values have a bias.
      layer_scale: initial value of the factors in each block; None = no such factors.
      gated: SwiGLU instead of GELU in the feed-forward networks.
      epsilon: of LayerNorm.
      pool: what the maps are: "token" the class token, [B,1,1,D]; "attention" all tokens gathered by attention, [B,1,1,D]; "average" the
        patches' tokens, [B,h,w,D], which heads average.
    """

    width: int
    heads: int
    depth: int = 12
    patch: int = 16
    grid: int = 14
    class_token: bool = True
    class_position: bool = True
    registers: int = 0
    qkv_bias: bool = True
    layer_scale: float | None = None
    gated: bool = False
    epsilon: float = 1e-6
    pool: str = "token"


class TokenNorm(nnx.LayerNorm):
    """flax's layer; in programs for other engines as one call, which they have whole."""

    scale: nnx.Param[jax.Array]
    bias: nnx.Param[jax.Array]

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]  # no mask
        if not forms.is_portable():
            return super().__call__(x)
        return layer_norm(x.astype(self.dtype), self.scale[...], self.bias[...], self.epsilon)


def _layer_norm(architecture: Architecture, dtype: Any, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Normalises in float32, whatever the dtype of the tokens."""
    return TokenNorm(
        architecture.width, epsilon=architecture.epsilon, use_fast_variance=False, dtype=dtype, param_dtype=jnp.float32, rngs=rngs
    )


class Embedding(nnx.Module):
    """Makes tokens of an image: [B,H,W,3] to [B,N,D].

    Parameters: `patch`, and as far as there are such things `class_token`, `registers` and `position`. The last has a row for each patch of
    the grid that it was trained with, after one for the class token where that has a position. It is interpolated for images of another
    size.
    """

    def __init__(self, architecture: Architecture, *, dtype: Any, rngs: nnx.Rngs):
        self.dtype, width = dtype, architecture.width
        options: dict[str, Any] = {"padding": ((0, 0), (0, 0)), "use_bias": True, "kernel_init": small_normal, "dtype": dtype}
        self.patch = layers.Conv(3, width, architecture.patch, stride=architecture.patch, **options, rngs=rngs)
        self.has_class_token, self.has_registers = architecture.class_token, architecture.registers > 0
        self.grid, self.class_position = architecture.grid, architecture.class_token and architecture.class_position
        if self.has_class_token:
            self.class_token = nnx.Param(small_normal(rngs.params(), (1, width)))  # zeros would be divided by epsilon's root in LayerNorm
        if self.has_registers:
            self.registers = nnx.Param(small_normal(rngs.params(), (architecture.registers, width)))
        if self.grid:
            self.position = nnx.Param(small_normal(rngs.params(), (self.grid**2 + self.class_position, width)))

    def __call__(self, image: jax.Array) -> jax.Array:
        patches = self.patch(image)
        batch, height, width, features = patches.shape
        x = patches.reshape(batch, height * width, features)
        first = [self.class_token[...]] if self.has_class_token else []
        if self.grid:
            own, position = jnp.split(self.position[...], [int(self.class_position)])
            x = x + resampled_positions(position, self.grid, height, width).astype(self.dtype)
            first = [first[0] + own] if self.class_position else first
        first += [self.registers[...]] if self.has_registers else []
        others = [jnp.broadcast_to(tokens.astype(self.dtype), (batch, *tokens.shape)) for tokens in first]
        return jnp.concatenate([*others, x], 1)


def resampled_positions(position: jax.Array, grid: int, height: int, width: int) -> jax.Array:
    """Position embeddings [grid²,D] for height x width patches, [height · width,D]: bicubic, and filtered where there are fewer of them.

    This is timm's `resample_abs_pos_embed`, that is, torch's `interpolate(mode="bicubic", antialias=True)`.
    """
    if (height, width) == (grid, grid):
        return position
    features = position.shape[-1]
    return jax.image.resize(position.reshape(grid, grid, features), (height, width, features), "cubic").reshape(-1, features)


class Blocks(Stage):
    """The blocks, one after another, with the same rotary positions for all, or none; the last gives the first `queries` tokens, or all."""

    def __call__(self, x: jax.Array, *, train: bool = False, rotation: Rotation | None = None, queries: int | None = None) -> jax.Array:
        del train  # a block does the same in training
        for i in range(self.blocks):
            x = getattr(self, str(i))(x, rotation, queries if i == self.blocks - 1 else None)
        return x


class VisionTransformer(Backbone):
    """Embedding, blocks, normalisation, pooling. No stochastic depth or dropout in training."""

    def __init__(self, architecture: Architecture, *, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        pool, width = architecture.pool, architecture.width
        if pool not in _POOLS or (pool == "token" and not architecture.class_token):
            raise UserError(
                f"config.model.variant asks for pool={pool!r}, which this Vision Transformer doesn't have; use "
                + ("'token' or 'average'." if architecture.class_token else "'attention' or 'average'.")
            )
        self.architecture, self.features = architecture, width
        self.embedding = Embedding(architecture, dtype=dtype, rngs=rngs)
        norm = functools.partial(_layer_norm, architecture, dtype, rngs)
        mlp = functools.partial(SwiGLU if architecture.gated else MLP, width, dtype=dtype, rngs=rngs)
        attention = functools.partial(Attention, width, architecture.heads, qkv_bias=architecture.qkv_bias, dtype=dtype, rngs=rngs)
        self.blocks = Blocks([Block(attention(), mlp(), (norm(), norm()), architecture.layer_scale) for _ in range(architecture.depth)])
        self.norm = norm()
        if pool == "attention":
            self.attention_pool = AttentionPool(width, architecture.heads, norm(), dtype=dtype, rngs=rngs)

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the maps; 1 and 1 but for pool="average".

        Raises:
          UserError: for images that patches don't cover exactly, with the nearest size that they do.
        """
        patch = self.architecture.patch
        if height % patch or width % patch:
            near = tuple(max(1, round(size / patch)) * patch for size in (height, width))
            raise UserError(
                f"config.data.image_size=({height}, {width}): this Vision Transformer cuts images into patches of {patch} x {patch} "
                f"pixels, so that sides must be multiples of {patch}; set config.data.image_size={near}."
            )
        return (height // patch, width // patch) if self.architecture.pool == "average" else (1, 1)

    def patch_maps(self, image: jax.Array) -> jax.Array:
        """The normalised tokens of the patches in their places, [B,h,w,D], whatever the pooling: for explanations and dense features."""
        patch = self.architecture.patch
        height, width = image.shape[1] // patch, image.shape[2] // patch
        patches = layers.part(self.norm(self._tokens(image)), slice(-height * width, None))
        return patches.reshape(image.shape[0], height, width, self.features)

    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        del train  # a Vision Transformer does the same in training
        pool = self.architecture.pool
        if pool == "average":
            return self.patch_maps(image)
        if pool == "attention":
            return self.attention_pool(self.norm(self._tokens(image)))[:, None, None]
        return self.norm(self._tokens(image, queries=1))[:, None]

    def places(self, image: jax.Array) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
        """See `Backbone.places`. The patches' tokens are those that are pooled; with pool="token", which pools none of them, those that the
        last block's attention sees: what its `norm1` makes of the tokens. (LayerNorm takes no notice of a factor, so that the product of
        the tokens before it with their gradient is 0, whatever they do.) The class token and the registers are held as they are.
        """
        pool = self.architecture.pool
        if pool == "average":
            return self.patch_maps(image), lambda places: places
        height, width = (side // self.architecture.patch for side in image.shape[1:3])
        last, rotation = getattr(self.blocks, str(self.blocks.blocks - 1)), self._rotation(image)
        x = self._tokens(image) if pool == "attention" else self.embedding(image)
        if pool == "token":
            for i in range(self.blocks.blocks - 1):
                x = getattr(self.blocks, str(i))(x, rotation)
        seen = self.norm(x) if pool == "attention" else last.norm1(x)
        others, patches = jnp.split(seen, [seen.shape[1] - height * width], axis=1)

        def rest(places: jax.Array) -> jax.Array:
            seen = jnp.concatenate([others, places.reshape(patches.shape)], 1)
            if pool == "attention":
                return self.attention_pool(seen)[:, None, None]
            return self.norm(last.of_normalised(x, seen, rotation, 1))[:, None]

        return patches.reshape(len(patches), height, width, self.features), rest

    def _tokens(self, image: jax.Array, queries: int | None = None) -> jax.Array:
        """All tokens after the last block, or the first `queries`."""
        return self.blocks(self.embedding(image), rotation=self._rotation(image), queries=queries)

    def _rotation(self, image: jax.Array) -> Rotation | None:
        """The rotary positions of an image's tokens; None where positions are learned."""
        kind = self.architecture
        if kind.grid:
            return None
        height, width = image.shape[1] // kind.patch, image.shape[2] // kind.patch
        return axial_rotation(height, width, kind.width // kind.heads, kind.class_token + kind.registers)


_SMALL, _BASE = {"width": 384, "heads": 6}, {"width": 768, "heads": 12}
_DINOV2 = {"patch": 14, "grid": 37, "class_position": False, "registers": 4, "layer_scale": 1e-5}
_DINOV3 = {"grid": 0, "registers": 4, "qkv_bias": False, "layer_scale": 1e-5, "epsilon": 1e-5, "pool": "average"}
_SIGLIP = {"class_token": False, "pool": "attention"}


def _build(sizes: dict[str, int], kind: dict[str, Any], *, dtype: Any = jnp.float32, rngs: nnx.Rngs, **changes: Any) -> VisionTransformer:
    return VisionTransformer(Architecture(**sizes | kind | changes), dtype=dtype, rngs=rngs)


def _model(sizes: dict[str, int], kind: dict[str, Any], parameters: int | None = None) -> Model:
    return Model(functools.partial(_build, sizes, kind), parameters)


_TINY = {"width": 32, "heads": 2, "depth": 2}

MODELS = {
    "vit_small_patch16_224": _model(_SMALL, {}, 22_050_664),
    "vit_base_patch16_224": _model(_BASE, {}, 86_567_656),
    "vit_small_patch14_reg4_dinov2": _model(_SMALL, _DINOV2, 22_442_344),
    "vit_base_patch14_reg4_dinov2": _model(_BASE, _DINOV2, 87_351_016),
    "vit_small_patch16_dinov3": _model(_SMALL, _DINOV3, 21_971_944),
    "vit_small_plus_patch16_dinov3": _model(_SMALL, _DINOV3 | {"gated": True}, 29_068_264),
    "vit_base_patch16_dinov3": _model(_BASE, _DINOV3, 86_410_216),
    "vit_base_patch16_siglip_224": _model(_BASE, _SIGLIP, 93_653_224),
    # for tests: two blocks, few channels, patches of 8 pixels
    "vit_tiny": _model(_TINY, {"patch": 8, "grid": 4}),
    "vit_tiny_dinov2": _model(_TINY, _DINOV2 | {"patch": 8, "grid": 4}),
    "vit_tiny_dinov3": _model(_TINY, _DINOV3 | {"patch": 8, "gated": True}),
    "vit_tiny_siglip": _model(_TINY, _SIGLIP | {"patch": 8, "grid": 4}),
}

_RESULTS = "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"
_DINOV2_README = "https://github.com/facebookresearch/dinov2"
_DINOV3_LICENCE = "https://ai.meta.com/resources/models-and-libraries/dinov3-license"
_SIGLIP_PAPER = "https://arxiv.org/abs/2502.14786"


def _weights(name: str, gmacs: float, **options: Any) -> Weights:
    """Weights that timm publishes; `gmacs` are those of its tables of benchmarks, at the input size.

    DINOv3's licence allows commercial use; who passes on weights, or networks made of them, must pass on the licence, too, and some uses,
    such as military ones, are excluded.
    """
    defaults: dict[str, Any] = {"interpolation": "bicubic", "licence": "apache-2.0", "gmacs": gmacs}
    model = name.split(".")[0]
    layout = "timm" if "dinov3" not in model else "timm_eva_gated" if "plus" in model else "timm_eva"
    return Weights(f"timm/{name}", model, layout, repo=f"timm/{name}", **defaults | options)


def _augreg(size: str, gmacs: float, top1: float) -> Weights:
    name = f"vit_{size}_patch16_224.augreg_in21k_ft_in1k"
    return _weights(name, gmacs, crop_fraction=0.9, mean=HALF, std=HALF, top1=top1, source=_RESULTS)


def _dinov2(size: str, gmacs: float, linear_probe: float) -> Weights:
    """Images are those of the published linear probe (`dinov2/data/transforms.py` there): 224 of 256 pixels.

    timm's 518 pixels, the size of the last part of their training, cost seven times as much. `gmacs` are counted, as timm counts them.
    """
    name = f"vit_{size}_patch14_reg4_dinov2.lvd142m"
    return _weights(name, gmacs, linear_probe=linear_probe, num_classes=0, source=_DINOV2_README)


def _dinov3(size: str, gmacs: float) -> Weights:
    name = f"vit_{size}_patch16_dinov3.lvd1689m"
    options = {"input_size": (256, 256), "crop_fraction": 1.0, "num_classes": 0}
    return _weights(name, gmacs, **options | {"licence": "dinov3-license", "source": _DINOV3_LICENCE})


WEIGHTS: tuple[Weights, ...] = (
    _augreg("small", 4.61, 81.402),
    _augreg("base", 17.58, 84.534),
    _dinov2("small", 6.23, 80.9),
    _dinov2("base", 23.54, 84.6),
    _dinov3("small", 6.26),
    _dinov3("small_plus", 8.11),
    _dinov3("base", 23.6),
    _weights("vit_base_patch16_siglip_224.v2_webli", 17.73, crop_fraction=0.9, mean=HALF, std=HALF, num_classes=0, source=_SIGLIP_PAPER),
)


@undone_by(lambda x: x[None])
def _rows(x: np.ndarray) -> np.ndarray:
    """[1,N,D], tokens for a batch of one, to [N,D]."""
    return x.reshape(x.shape[1:]) if len(x) == 1 else x


def _layer(name: str, path: str) -> tuple[Rule, ...]:
    """Rules of a torch linear layer, or of LayerNorm, whose `weight` is our `scale`."""
    leaf, transform = ("scale", same) if "norm" in path.rsplit("/", 1)[-1] else ("kernel", linear)
    return ((rf"{name}\.weight", f"{path}/{leaf}", transform), (rf"{name}\.bias", f"{path}/bias", same))


def _mlp(name: str, path: str, *, gated: bool = False) -> tuple[Rule, ...]:
    layers_by_name = {"fc1_g": "gate", "fc1_x": "expand", "fc2": "project"} if gated else {"fc1": "expand", "fc2": "project"}
    return tuple(rule for layer, ours in layers_by_name.items() for rule in _layer(rf"{name}\.{layer}", f"{path}/{ours}"))


def _rules(layer_scale: str, *, gated: bool = False) -> tuple[Rule, ...]:
    """Names of timm's VisionTransformer and Eva; `layer_scale` is the pattern of what they call differently."""
    block, path, pool = r"blocks\.(\d+)\.", r"backbone/blocks/\1", "backbone/attention_pool"
    return (
        (r"patch_embed\.proj\.weight", "backbone/embedding/patch/kernel", conv),
        (r"patch_embed\.proj\.bias", "backbone/embedding/patch/bias", same),
        ("cls_token", "backbone/embedding/class_token", _rows),
        ("reg_token", "backbone/embedding/registers", _rows),
        ("pos_embed", "backbone/embedding/position", _rows),
        *_layer(block + "norm1", f"{path}/norm1"),
        *_layer(block + r"attn\.qkv", f"{path}/attention/qkv"),
        *_layer(block + r"attn\.proj", f"{path}/attention/project"),
        *_layer(block + "norm2", f"{path}/norm2"),
        *_mlp(block + "mlp", f"{path}/mlp", gated=gated),
        (block + layer_scale, path + r"/layer_scale\2/scale", same),
        *_layer("norm", "backbone/norm"),
        (r"attn_pool\.latent", f"{pool}/latent", _rows),
        *_layer(r"attn_pool\.q", f"{pool}/query"),
        *_layer(r"attn_pool\.kv", f"{pool}/key_value"),
        *_layer(r"attn_pool\.proj", f"{pool}/project"),
        *_layer(r"attn_pool\.norm", f"{pool}/norm"),
        *_mlp(r"attn_pool\.mlp", f"{pool}/mlp"),
        *_layer("head", "head/logits"),
    )


# timm's Eva has DINOv3
CONVERSION: dict[str, tuple[Rule, ...]] = {
    "timm": _rules(r"ls([12])\.gamma"),
    "timm_eva": _rules("gamma_([12])"),
    "timm_eva_gated": _rules("gamma_([12])", gated=True),
}
