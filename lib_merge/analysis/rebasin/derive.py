"""The permutation spec of a checkpoint, derived from its keys and shapes.

Exact symmetries, all of them in the spec; a model permuted by any choice of them
computes the same function of tokens, latents, timestep and sizes:

* The hidden features of the timestep's, the size's and every feed-forward's two layers:
  any order. In GEGLU both halves of the first layer follow one permutation.
* Attention: the heads of a layer in any order, and within a head any order of the
  features of query and key, and another of value and output. CLIP-G holds query, key
  and value as thirds of one matrix.
* The channels within a resnet, between its two convolutions: group normalisation takes
  its statistics over 32 groups of neighbours, so whole groups change places, and
  channels within a group.
* The stream that a transformer's layers add to: any order, which a layer norm does not
  mind. The same goes for a text encoder, whose stream is also what every
  cross-attention of the UNet reads (SDXL: both streams side by side), and for CLIP-G's
  pooled features, which `label_emb` reads. Where a file has no text encoder, what the
  UNet reads of it stays in order.
* The timestep's features that every resnet reads: any order.
* The residual streams of the UNet: from a convolution that makes new channels (the
  first one, every down- and upsampler, every resnet with a skip convolution) through
  all that adds to them, to all that read them, among these the output blocks that read
  an earlier stream as a skip connection beside their own input. Each normalisation on
  the way divides the stream into groups, over two streams side by side into other
  groups than over one alone, and a group may hold channels of both. A permutation must
  map the groups of every one of these divisions onto groups of the same division; a
  group of two streams stays where it is. Such permutations are whole chains of
  overlapping groups changing places and, inside, everything that no division tells
  apart (`structure.grouped`).

Left out:

* Turning a chain of overlapping groups around, and moving the two halves of a shared
  group in both streams at once: they are few, and no assignment finds them.
* Symmetries that are no permutations (scaling query against key and the like).
* The autoencoder, which merges leave alone; the EMA copy, which an aligned file drops.
* Latent channels, timestep frequencies, tokens and positions, whose order is meant.
* Attention of a text encoder of unusual width, unless its number of heads is given.
"""

from __future__ import annotations

from collections.abc import Mapping

from lib_merge.analysis.rebasin._builder import SpecBuilder, Stream
from lib_merge.analysis.rebasin._text import TextWalk
from lib_merge.analysis.rebasin._unet import PREFIX, walk_unet
from lib_merge.analysis.rebasin.heads import UNET_RULES, HeadRule
from lib_merge.analysis.rebasin.spec import PermutationSpec
from lib_merge.core.blocks import Architecture, Component, KeyInfos, Treatment
from lib_merge.errors import CheckpointError

COMPONENTS = (Component.UNET, Component.CLIP_L, Component.CLIP_G)
"""What is permuted."""

_CLIP_L = {
    "sd1": "cond_stage_model.transformer.",
    "sdxl": "conditioner.embedders.0.transformer.",
}
_CLIP_G = "conditioner.embedders.1.model."


def derive_spec(
    architecture: Architecture,
    infos: KeyInfos,
    *,
    where: str = "The model",
    n_heads: Mapping[Component, int] | None = None,
) -> PermutationSpec:
    """The spec of a checkpoint.

    Args:
        architecture: As detected.
        infos: Every key of the checkpoint with its shape.
        where: The file, for messages.
        n_heads: Numbers of attention heads by component, for models of unusual width.

    Raises:
        CheckpointError: An architecture without a spec, or a checkpoint that is not of
            the usual form.
    """
    if architecture.id not in UNET_RULES:
        known = ", ".join(sorted(UNET_RULES))
        raise CheckpointError(
            f"{where} is {architecture.label}, whose permutations are not known; "
            f"Git Re-Basin works for {known}."
        )
    given = n_heads or {}
    builder = SpecBuilder(infos, where)
    context, pooled = _text_encoders(builder, architecture.id, given)
    rule = UNET_RULES[architecture.id]
    if Component.UNET in given:
        rule = HeadRule(n_heads=given[Component.UNET])
    walk_unet(builder, rule, context, pooled)
    return builder.build(_owned(architecture, infos))


def _owned(architecture: Architecture, infos: KeyInfos) -> dict[str, Component]:
    """The keys that must all be understood."""
    found = {}
    for key in infos:
        role = architecture.role_of(key)
        if role is None or role.treatment is not Treatment.MERGE:
            continue
        if role.component in COMPONENTS:
            found[key] = role.component
    return found


def _text_encoders(
    builder: SpecBuilder, arch_id: str, n_heads: Mapping[Component, int]
) -> tuple[list[tuple[Stream, int]], Stream | None]:
    """Their streams with their places in the context, and the pooled one."""
    context: list[tuple[Stream, int]] = []
    pooled = None
    outer = _CLIP_L[arch_id]
    # Old SD1 files leave `text_model.` out.
    inner = next(
        (p for p in (f"{outer}text_model.", outer) if builder.has(p + _FIRST)), None
    )
    if inner is not None:
        walk = TextWalk(builder, Component.CLIP_L, inner, n_heads)
        context.append((walk.clip_l(outer), 0))
    if arch_id == "sdxl" and builder.has(f"{_CLIP_G}token_embedding.weight"):
        walk = TextWalk(builder, Component.CLIP_G, _CLIP_G, n_heads)
        stream, pooled = walk.clip_g()
        context.append((stream, _context_width(builder) - stream.width))
    return context, pooled


_FIRST = "embeddings.token_embedding.weight"


def _context_width(builder: SpecBuilder) -> int:
    key = f"{PREFIX}middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    return builder.shape(key)[1]
