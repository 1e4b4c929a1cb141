"""Sparsifiner (Wei et al., CVPR 2023, arXiv 2303.13755): vision transformers that connect only what
matters.

A DeiT (Touvron et al., arXiv 2012.12877) or an LV-ViT (Jiang et al., arXiv 2104.10858) whose
attention runs on the pairs of tokens that a light predictor chooses, image by image. Weights have
the names of timm's DeiT, of LV-ViT's repository, and, of the predictor, of Sparsifiner's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.methods.attention import SparseConnections
from sparsevit.methods.attention.explain import Explanation, explain
from sparsevit.methods.attention.forward import class_attention, largest, split_heads
from sparsevit.methods.attention.predictor import (
    MaskPredictor,
    check_predictor,
    is_count,
    require,
)
from sparsevit.methods.attention.routes import attend
from sparsevit.sparsity.handle import ATTACHED

ARCHITECTURES = ("deit", "lvvit")


@dataclass(frozen=True)
class SparsifinerConfig:
    """What a Sparsifiner is.

    Args:
        architecture: ``"deit"`` or ``"lvvit"``.
        img_size: height and width of the images in pixels; one number for both.
        patch_size: side of a patch in pixels.
        num_classes: of the logits.
        embed_dims: channels of a token.
        depth: number of blocks.
        num_heads: of each attention.
        mlp_ratio: hidden channels of an MLP by those of a token: 4 in DeiT, 3 in LV-ViT.
        keep_rate: share of the keys that a query keeps; a list has one for each layer. At 1 a layer
            is dense.
        reduce_n, reduce_c, basis_threshold, coefficients, connections: see
            :class:`~sparsevit.methods.attention.predictor.MaskPredictor`.
        prune_tokens: layer, from 0, -> share of all patches that are kept from there on, those that
            the class token attends to most. None prunes none.
        share_projection: whether the basis is made of the weights that mix the keys.

    Raises:
        UserError: a value is none of these, or they do not go together.
    """

    architecture: str
    img_size: int | tuple[int, int]
    patch_size: int
    num_classes: int
    embed_dims: int
    depth: int
    num_heads: int
    mlp_ratio: float
    keep_rate: float | Sequence[float] = 0.25
    reduce_n: int = 6
    reduce_c: int = 2
    basis_threshold: float = 0.02
    coefficients: int | float = 8
    connections: str | float = "topk"
    prune_tokens: Mapping[int, float] | None = None
    share_projection: bool = False

    def __post_init__(self) -> None:
        _check(self)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        size = self.img_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        height, width = self.image_size
        return height // self.patch_size, width // self.patch_size

    @property
    def num_tokens(self) -> int:
        """Patches, and the class token."""
        return math.prod(self.grid) + 1

    @property
    def keep_rates(self) -> tuple[float, ...]:
        """Of each layer."""
        rate = self.keep_rate
        return (rate,) * self.depth if isinstance(rate, (int, float)) else tuple(rate)


def build_sparsifiner(config: SparsifinerConfig) -> Sparsifiner:
    """A Sparsifiner with random weights: (B, 3, H, W) normalised images -> (B, classes) logits."""
    return Sparsifiner(config)


# --- parts ----------------------------------------------------------------------------------------


class PatchEmbed(nn.Module):
    """DeiT's: a patch is a product with its pixels. (B, 3, H, W) -> (B, C, rows, columns)."""

    def __init__(self, patch_size: int, embed_dims: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dims, patch_size, patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images)


class ConvolutionalStem(nn.Module):
    """LV-ViT's: four convolutions. (B, 3, H, W) -> (B, C, rows, columns)."""

    def __init__(self, patch_size: int, embed_dims: int, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.proj = nn.Conv2d(width, embed_dims, patch_size // 2, patch_size // 2)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        return self.proj(x)


class Mlp(nn.Module):
    """Two layers with GELU between."""

    def __init__(self, embed_dims: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, hidden)
        self.fc2 = nn.Linear(hidden, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SparseAttention(nn.Module):
    """Multi-head self-attention over the pairs that a predictor chooses."""

    def __init__(self, config: SparsifinerConfig, layer: int) -> None:
        super().__init__()
        C = config.embed_dims
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(C, 3 * C, bias=config.architecture == "deit")
        self.proj = nn.Linear(C, C)
        self.mask_predictor = MaskPredictor(
            config.num_tokens,
            C // config.num_heads,
            config.num_heads,
            config.reduce_n,
            config.reduce_c,
            config.share_projection,
            config.basis_threshold,
            config.coefficients,
            config.connections,
            config.keep_rates[layer],
        )

    def forward(self, x_BnC: Tensor, tokens_Bn: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Attention of tokens, (B, n, C), and their queries and keys, (B, H, n, d).

        Args:
            tokens_Bn: which of the predictor's tokens these are; all of them where None.
        """
        q, k, v = split_heads(self.qkv(x_BnC), self.num_heads)
        out = attend(self.mask_predictor, q, k, v, tokens_Bn)
        return self.proj(out.transpose(1, 2).flatten(2)), q, k


class Block(nn.Module):
    """Attention and an MLP, each normalised before and added to what came in."""

    def __init__(self, config: SparsifinerConfig, layer: int) -> None:
        super().__init__()
        deit, C = config.architecture == "deit", config.embed_dims
        epsilon = 1e-6 if deit else 1e-5
        self.residual = 1.0 if deit else 0.5
        self.kept_patches = _kept_patches(config, layer)
        self.norm1 = nn.LayerNorm(C, epsilon)
        self.attn = SparseAttention(config, layer)
        self.norm2 = nn.LayerNorm(C, epsilon)
        self.mlp = Mlp(C, int(C * config.mlp_ratio))

    def forward(self, x_BnC: Tensor, tokens_Bn: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, n, C), and which these are: fewer than came in where this layer prunes."""
        out, q, k = self.attn(self.norm1(x_BnC), tokens_Bn)
        x_BnC = x_BnC + out * self.residual
        if self.kept_patches is not None and self.kept_patches + 1 < x_BnC.shape[1]:
            kept = most_attended(class_attention(q, k), self.kept_patches)
            x_BnC = x_BnC.gather(1, kept.unsqueeze(-1).expand(-1, -1, x_BnC.shape[-1]))
            tokens_Bn = kept if tokens_Bn is None else tokens_Bn.gather(1, kept)
        return x_BnC + self.mlp(self.norm2(x_BnC)) * self.residual, tokens_Bn


def most_attended(class_attention_BH1n: Tensor, patches: int) -> Tensor:
    """The class token and the patches that it attends to most, on average over heads: (B, 1 +
    patches) indices, in the order of the tokens."""
    kept = largest(class_attention_BH1n.mean(1)[:, 0, 1:], patches)
    kept = F.pad(kept, (1, 0), value=True)
    return kept.nonzero()[:, 1].view(len(kept), -1)


# --- the whole ------------------------------------------------------------------------------------


class Sparsifiner(nn.Module):
    """See :func:`build_sparsifiner`. Its knobs are ``blocks.0`` and so on: the share of the keys
    that a layer leaves out.

    Args:
        config: what it is.
        **connections: of :class:`~sparsevit.methods.attention.SparseConnections`.
    """

    def __init__(self, config: SparsifinerConfig, **connections: Any) -> None:
        super().__init__()
        self.config = config
        C, deit = config.embed_dims, config.architecture == "deit"
        self.cls_token = nn.Parameter(torch.empty(1, 1, C))
        self.pos_embed = nn.Parameter(torch.empty(1, config.num_tokens, C))
        self.patch_embed = (PatchEmbed if deit else ConvolutionalStem)(config.patch_size, C)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.depth))
        self.norm = nn.LayerNorm(C, 1e-6 if deit else 1e-5)
        self.head = nn.Linear(C, config.num_classes)
        self.aux_head = None if deit else nn.Linear(C, config.num_classes)
        for token in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        blocks: Any = self.blocks
        named = {f"blocks.{i}": block.attn.mask_predictor for i, block in enumerate(blocks)}
        setattr(self, ATTACHED, SparseConnections(named, **connections))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of normalised images (B, 3, H, W).

        Those of LV-ViT in evaluation are the class token's and half of the largest of any patch.

        Raises:
            UserError: the images are of another size than the model is made for.
        """
        return self.classified(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """Tokens after the last norm, (B, n, C): the class token, then the patches that are left.

        Raises:
            UserError: as for :meth:`forward`.
        """
        return self._tokens(self._embedded(images))

    def classified(self, features_BnC: Tensor) -> Tensor:
        """Logits of what :meth:`features` gives."""
        logits = self.head(features_BnC[:, 0])
        if self.aux_head is None or self.training:
            return logits
        return logits + 0.5 * self.aux_head(features_BnC[:, 1:]).amax(1)

    def explain(self, images: Tensor) -> Explanation:
        """What the model connects on images (B, 3, H, W); see
        :class:`~sparsevit.methods.attention.explain.Explanation`.

        Masks of all layers are (B, H, N, N) each: take few images at a high resolution.

        Raises:
            UserError: as for :meth:`forward`.
        """
        return explain(self, lambda: self.classified(self.features(images)))

    def _embedded(self, images: Tensor) -> Tensor:
        """Patches (B, C, rows, columns), without positions."""
        size = tuple(images.shape[-2:])
        if size != self.config.image_size:
            wanted = "x".join(map(str, self.config.image_size))
            raise UserError(
                f"The images are {size[0]}x{size[1]}, and the predictor of connections is made for "
                f"the {self.config.num_tokens} tokens of {wanted}.",
                f"Resize the images to {wanted}, or build the model with img_size={size}.",
            )
        return self.patch_embed(images)

    def label_tokens(self, images: Tensor, box: Box | None = None) -> tuple[Tensor, Tensor]:
        """Logits of the class token, (B, classes), and of each patch, (B, N - 1, classes): what
        token labelling trains (Jiang et al., arXiv 2104.10858), of an LV-ViT without pruning.

        Args:
            images: (B, 3, H, W), normalised.
            box: :func:`draw_box`; patches within it are those of the batch in reverse order, and
                their logits are given back to the image that they are from.

        Raises:
            UserError: as for :meth:`forward`; or the model has no head for patches, or not all.
        """
        if self.aux_head is None or self.config.prune_tokens:
            raise UserError(
                "Token labelling needs logits of every patch, which this model does not have.",
                "Use architecture='lvvit', and prune_tokens=None.",
            )
        patches = self._embedded(images)
        x = self._tokens(patches if box is None else mixed(patches, box))
        logits, tokens = self.head(x[:, 0]), self.aux_head(x[:, 1:])
        if box is not None:
            tokens = tokens.transpose(1, 2).unflatten(2, patches.shape[2:])
            tokens = mixed(tokens, box).flatten(2).transpose(1, 2)
        return logits, tokens

    def _tokens(self, patches_BChw: Tensor) -> Tensor:
        x = patches_BChw.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        tokens = None
        for block in self.blocks:
            x, tokens = block(x, tokens)
        return self.norm(x)


Box = tuple[int, int, int, int]
"""First and last row, first and last column of patches; the last ones are not in it."""


def draw_box(grid: tuple[int, int], generator: torch.Generator | None = None) -> Box:
    """A random box of patches for :meth:`Sparsifiner.label_tokens`, as CutMix draws it.

    Its area is a share of the image drawn evenly, before it is cut at the border.

    Args:
        grid: patches down and across.
        generator: of random numbers, on the CPU; PyTorch's own where None.
    """
    share, *centre = torch.rand(3, generator=generator).tolist()
    edges = []
    for side, place in zip(grid, centre, strict=True):
        middle, half = int(place * side), int(side * math.sqrt(share)) // 2
        edges += [max(0, middle - half), min(side, middle + half)]
    return edges[0], edges[1], edges[2], edges[3]


def mixed(maps_BChw: Tensor, box: Box) -> Tensor:
    """Maps, within a box those of the batch in reverse order."""
    top, bottom, left, right = box
    inside = maps_BChw.new_zeros(maps_BChw.shape[2:], dtype=torch.bool)
    inside[top:bottom, left:right] = True
    return torch.where(inside, maps_BChw.flip(0), maps_BChw)


# --- checks ---------------------------------------------------------------------------------------


def _kept_patches(config: SparsifinerConfig, layer: int) -> int | None:
    """How many patches a layer leaves; None where it prunes none."""
    share = (config.prune_tokens or {}).get(layer)
    return None if share is None else math.ceil(share * (config.num_tokens - 1))


def _check(config: SparsifinerConfig) -> None:
    c = config
    require(
        c.architecture in ARCHITECTURES,
        f"architecture={c.architecture!r} is not known.",
        "Give 'deit' or 'lvvit'.",
    )
    for name in ("patch_size", "num_classes", "embed_dims", "depth", "num_heads"):
        value = getattr(c, name)
        require(
            is_count(value),
            f"{name}={value!r} is no positive whole number.",
            "Give a whole number from 1 up.",
        )
    require(
        all(side > 0 and side % c.patch_size == 0 for side in c.image_size),
        f"img_size={c.img_size!r} does not consist of patches of {c.patch_size}.",
        f"Give a multiple of {c.patch_size}.",
    )
    require(
        c.architecture == "deit" or c.patch_size % 2 == 0,
        f"patch_size={c.patch_size} is odd, and LV-ViT's stem halves the image first.",
        "Give an even patch_size.",
    )
    require(
        c.embed_dims % c.num_heads == 0,
        f"{c.embed_dims} channels do not divide into {c.num_heads} heads.",
        "Give an embed_dims that is a multiple of num_heads.",
    )
    require(
        c.mlp_ratio > 0,
        f"mlp_ratio={c.mlp_ratio!r} is not above 0.",
        "Give 4 (DeiT) or 3 (LV-ViT).",
    )
    require(
        len(c.keep_rates) == c.depth,
        f"{len(c.keep_rates)} keep rates are given for {c.depth} layers.",
        f"Give one number, or a list of {c.depth}.",
    )
    check_predictor(
        c.num_tokens,
        c.embed_dims // c.num_heads,
        c.keep_rates,
        reduce_n=c.reduce_n,
        reduce_c=c.reduce_c,
        basis_threshold=c.basis_threshold,
        coefficients=c.coefficients,
        connections=c.connections,
    )
    for layer, share in (c.prune_tokens or {}).items():
        require(
            isinstance(layer, int) and 0 <= layer < c.depth and 0 < share <= 1,
            f"prune_tokens={{{layer!r}: {share!r}}} is no layer and share of {c.depth} layers.",
            "Give a layer, counted from 0, and the share of patches that it keeps, such as "
            "{3: 0.7}.",
        )
