"""The UNets of SD1 and SDXL: their channel axes, found by a walk through the blocks."""

from __future__ import annotations

from collections.abc import Sequence

from lib_merge.analysis.rebasin._builder import SpecBuilder, Stream
from lib_merge.analysis.rebasin.heads import HeadRule
from lib_merge.core.blocks import Component

PREFIX = "model.diffusion_model."
_UNET = Component.UNET


def walk_unet(
    builder: SpecBuilder,
    rule: HeadRule,
    context: Sequence[tuple[Stream, int]],
    pooled: Stream | None,
) -> None:
    """Follow a UNet's channels from its first convolution to its last.

    Args:
        builder: Gets every stream.
        rule: How the attention's features are divided into heads.
        context: The text encoders' streams with their place among the features that
            cross-attention reads; empty where the checkpoint has no text encoder.
        pooled: The stream of pooled text features that `label_emb` reads.
    """
    _Walk(builder, rule, context, pooled).run()


class _Walk:
    def __init__(
        self,
        builder: SpecBuilder,
        rule: HeadRule,
        context: Sequence[tuple[Stream, int]],
        pooled: Stream | None,
    ) -> None:
        self._builder = builder
        self._rule = rule
        self._context = context
        self._pooled = pooled

    def run(self) -> None:
        """Walk through all of it."""
        self._time = self._time_features()
        x: list[Stream] = []
        skips: list[Stream] = []
        for prefix in self._numbered("input_blocks"):
            x = [self._block(prefix, x)]
            skips += x
        x = [self._block(f"{PREFIX}middle_block", x)]
        for prefix in self._numbered("output_blocks"):
            x = [self._block(prefix, [*x, skips.pop()])]
        self._builder.group_norm(x, f"{PREFIX}out.0")
        self._builder.into(x, f"{PREFIX}out.2")

    def _numbered(self, side: str) -> list[str]:
        found: list[str] = []
        while self._has_modules(f"{PREFIX}{side}.{len(found)}"):
            found.append(f"{PREFIX}{side}.{len(found)}")
        return found

    def _has_modules(self, block: str) -> bool:
        return self._builder.has(f"{block}.0.weight") or any(
            self._builder.has(f"{block}.0.{name}.weight")
            for name in ("in_layers.0", "op")
        )

    def _stream(self, module: str, name: str, width: int) -> Stream:
        short = module.removeprefix(PREFIX)
        return self._builder.stream(f"{short}.{name}", _UNET, width)

    def _new(self, module: str, name: str, layer: str) -> Stream:
        """A new stream that a layer puts out."""
        width = self._builder.shape(f"{layer}.weight")[0]
        stream = self._stream(module, name, width)
        self._builder.out_of(stream, layer)
        return stream

    def _time_features(self) -> Stream:
        """What every resnet gets of the timestep (and, in SDXL, of size and text)."""
        layer = f"{PREFIX}time_embed"
        hidden = self._new(layer, "hidden", f"{layer}.0")
        self._builder.into([hidden], f"{layer}.2")
        time = self._new(layer, "stream", f"{layer}.2")
        label = f"{PREFIX}label_emb.0"
        if self._builder.has(f"{label}.0.weight"):
            hidden = self._new(label, "hidden", f"{label}.0")
            if self._pooled is not None:
                self._builder.follow(self._pooled, f"{label}.0.weight", 1)
            self._builder.into([hidden], f"{label}.2")
            self._builder.out_of(time, f"{label}.2")
        return time

    def _block(self, prefix: str, x: list[Stream]) -> Stream:
        index = 0
        while True:
            module = f"{prefix}.{index}"
            if self._builder.has(f"{module}.in_layers.0.weight"):
                x = [self._resnet(module, x)]
            elif self._builder.has(f"{module}.proj_in.weight"):
                self._transformer(module, x)
            elif self._builder.has(f"{module}.weight"):
                x = [self._convolution(module, module, x)]
            elif self._builder.has(f"{module}.op.weight"):
                x = [self._convolution(module, f"{module}.op", x)]
            elif self._builder.has(f"{module}.conv.weight"):
                x = [self._convolution(module, f"{module}.conv", x)]
            else:
                return x[0]
            index += 1

    def _convolution(self, module: str, layer: str, x: list[Stream]) -> Stream:
        if x:
            self._builder.into(x, layer)
        return self._new(module, "stream", layer)

    def _resnet(self, module: str, x: list[Stream]) -> Stream:
        """Channels within it are its own; without a skip convolution it adds to x."""
        builder = self._builder
        builder.group_norm(x, f"{module}.in_layers.0")
        builder.into(x, f"{module}.in_layers.2")
        hidden = self._new(module, "hidden", f"{module}.in_layers.2")
        builder.into([self._time], f"{module}.emb_layers.1")
        builder.out_of(hidden, f"{module}.emb_layers.1")
        builder.group_norm([hidden], f"{module}.out_layers.0")
        builder.into([hidden], f"{module}.out_layers.3")
        if not builder.has(f"{module}.skip_connection.weight"):
            builder.out_of(x[0], f"{module}.out_layers.3")
            return x[0]
        result = self._new(module, "stream", f"{module}.out_layers.3")
        builder.into(x, f"{module}.skip_connection")
        builder.out_of(result, f"{module}.skip_connection")
        return result

    def _transformer(self, module: str, x: list[Stream]) -> None:
        """Its layers add to a stream of their own, which layer norms do not bind."""
        builder = self._builder
        builder.group_norm(x, f"{module}.norm")
        builder.into(x, f"{module}.proj_in")
        inner = self._new(module, "stream", f"{module}.proj_in")
        index = 0
        while builder.has(f"{module}.transformer_blocks.{index}.norm1.weight"):
            self._layer(f"{module}.transformer_blocks.{index}", inner)
            index += 1
        builder.into([inner], f"{module}.proj_out")
        builder.out_of(x[0], f"{module}.proj_out")

    def _layer(self, layer: str, inner: Stream) -> None:
        builder = self._builder
        for index in (1, 2, 3):
            builder.layer_norm(inner, f"{layer}.norm{index}")
        self._attention(f"{layer}.attn1", inner, [(inner, 0)])
        self._attention(f"{layer}.attn2", inner, self._context)
        # GEGLU: the first half times the gate of the second, channel by channel.
        width = builder.shape(f"{layer}.ff.net.2.weight")[1]
        hidden = self._stream(layer, "ff.hidden", width)
        for half in (0, width):
            for name in ("weight", "bias"):
                builder.follow(hidden, f"{layer}.ff.net.0.proj.{name}", 0, start=half)
        builder.into([inner], f"{layer}.ff.net.0.proj")
        builder.into([hidden], f"{layer}.ff.net.2")
        builder.out_of(inner, f"{layer}.ff.net.2")

    def _attention(
        self, module: str, inner: Stream, read: Sequence[tuple[Stream, int]]
    ) -> None:
        builder = self._builder
        width = builder.shape(f"{module}.to_q.weight")[0]
        n_heads = self._rule.count(width, f"{module}.to_q.weight")
        short = module.removeprefix(PREFIX)
        heads = builder.heads(f"{short}.heads", _UNET, n_heads, width // n_heads)
        for name, offset in (("to_q", 0), ("to_k", 0), ("to_v", width)):
            builder.follow(heads, f"{module}.{name}.weight", 0, offset=offset)
        builder.follow(heads, f"{module}.to_out.0.weight", 1, offset=width)
        builder.into([inner], f"{module}.to_q")
        for name in ("to_k", "to_v"):
            for stream, start in read:
                builder.follow(stream, f"{module}.{name}.weight", 1, start=start)
        builder.out_of(inner, f"{module}.to_out.0")
