"""The text encoders CLIP-L (Hugging Face names) and CLIP-G (OpenCLIP names)."""

from __future__ import annotations

from collections.abc import Mapping

from lib_merge.analysis.rebasin._builder import SpecBuilder, Stream
from lib_merge.analysis.rebasin.heads import text_rule
from lib_merge.core.blocks import Component


class TextWalk:
    """Follows one text encoder's channels.

    Args:
        builder: Gets every stream.
        component: CLIP_L or CLIP_G.
        prefix: Of its keys.
        n_heads: Numbers of heads that the user names.
    """

    def __init__(
        self,
        builder: SpecBuilder,
        component: Component,
        prefix: str,
        n_heads: Mapping[Component, int],
    ) -> None:
        self._builder = builder
        self._component = component
        self._prefix = prefix
        self._n_heads = n_heads

    def clip_l(self, outer: str) -> Stream:
        """Walk through Hugging Face's names.

        Args:
            outer: Prefix of what lies beside the text model (text_projection).

        Returns:
            The stream that its layers add to, which the UNet reads.
        """
        p, builder = self._prefix, self._builder
        token = f"{p}embeddings.token_embedding.weight"
        stream = self._stream("stream", builder.shape(token)[1])
        builder.follow(stream, token, 1)
        builder.follow(stream, f"{p}embeddings.position_embedding.weight", 1)
        index = 0
        while builder.has(f"{p}encoder.layers.{index}.layer_norm1.weight"):
            layer = f"{p}encoder.layers.{index}"
            builder.layer_norm(stream, f"{layer}.layer_norm1")
            builder.layer_norm(stream, f"{layer}.layer_norm2")
            self._attention_l(layer, index, stream)
            names = (f"{layer}.mlp.fc1", f"{layer}.mlp.fc2")
            self._feed_forward(index, stream, *names)
            index += 1
        builder.layer_norm(stream, f"{p}final_layer_norm")
        if builder.has(f"{outer}text_projection.weight"):
            builder.into([stream], f"{outer}text_projection")
        builder.know(f"{p}embeddings.position_ids", f"{outer}logit_scale")
        return stream

    def clip_g(self) -> tuple[Stream, Stream | None]:
        """Walk through OpenCLIP's names.

        Returns:
            The stream that its layers add to, and that of the pooled features.
        """
        p, builder = self._prefix, self._builder
        token = f"{p}token_embedding.weight"
        stream = self._stream("stream", builder.shape(token)[1])
        builder.follow(stream, token, 1)
        builder.follow(stream, f"{p}positional_embedding", 1)
        index = 0
        while builder.has(f"{p}transformer.resblocks.{index}.ln_1.weight"):
            layer = f"{p}transformer.resblocks.{index}"
            builder.layer_norm(stream, f"{layer}.ln_1")
            builder.layer_norm(stream, f"{layer}.ln_2")
            self._attention_g(layer, index, stream)
            names = (f"{layer}.mlp.c_fc", f"{layer}.mlp.c_proj")
            self._feed_forward(index, stream, *names)
            index += 1
        builder.layer_norm(stream, f"{p}ln_final")
        builder.know(f"{p}logit_scale")
        projection = f"{p}text_projection"
        if not builder.has(projection):
            return stream, None
        # Features times this matrix, so that its second axis is the output.
        builder.follow(stream, projection, 0)
        pooled = self._stream("pooled", builder.shape(projection)[1])
        builder.follow(pooled, projection, 1)
        return stream, pooled

    def _stream(self, name: str, width: int) -> Stream:
        full = f"{self._component.value}.{name}"
        return self._builder.stream(full, self._component, width)

    def _heads(self, index: int, width: int) -> Stream | None:
        """The attention's axis, or None where its heads are not known."""
        rule = text_rule(self._component, width, self._n_heads)
        name = self._component.value
        if rule is None:
            if index == 0:
                self._builder.warnings.append(
                    f"The heads of {name} with {width} features are not known, so its "
                    f"attention is left as it is; name them (--heads {name}=4)."
                )
            return None
        n_heads = rule.count(width, f"{self._prefix} layer {index}")
        return self._builder.heads(
            f"{name}.{index}.heads", self._component, n_heads, width // n_heads
        )

    def _attention_l(self, layer: str, index: int, stream: Stream) -> None:
        builder = self._builder
        attention = f"{layer}.self_attn"
        width = builder.shape(f"{attention}.q_proj.weight")[0]
        heads = self._heads(index, width)
        for name, offset in (("q_proj", 0), ("k_proj", 0), ("v_proj", width)):
            builder.into([stream], f"{attention}.{name}")
            if heads is not None:
                for kind in ("weight", "bias"):
                    key = f"{attention}.{name}.{kind}"
                    builder.follow(heads, key, 0, offset=offset)
        if heads is not None:
            builder.follow(heads, f"{attention}.out_proj.weight", 1, offset=width)
        builder.out_of(stream, f"{attention}.out_proj")

    def _attention_g(self, layer: str, index: int, stream: Stream) -> None:
        """Query, key and value are thirds of one matrix."""
        builder = self._builder
        weight = f"{layer}.attn.in_proj_weight"
        width = builder.shape(weight)[0] // 3
        heads = self._heads(index, width)
        builder.follow(stream, weight, 1)
        builder.know(f"{layer}.attn.in_proj_bias")
        if heads is not None:
            for third, offset in ((0, 0), (1, 0), (2, width)):
                for kind in ("weight", "bias"):
                    key = f"{layer}.attn.in_proj_{kind}"
                    start = third * width
                    builder.follow(heads, key, 0, start=start, offset=offset)
            builder.follow(heads, f"{layer}.attn.out_proj.weight", 1, offset=width)
        builder.out_of(stream, f"{layer}.attn.out_proj")

    def _feed_forward(self, index: int, stream: Stream, up: str, down: str) -> None:
        builder = self._builder
        width = builder.shape(f"{up}.weight")[0]
        hidden = self._stream(f"{index}.mlp.hidden", width)
        builder.into([stream], up)
        builder.out_of(hidden, up)
        builder.into([hidden], down)
        builder.out_of(stream, down)
