"""The text tower rearranged for speed: the same function of the same weights.

What differs from `SiglipTextTransformer` is what differs in the vision tower's layers, and that the
last layer computes the last position only: no other reaches the vector.
"""

import torch
from torch import nn

from model.fused_attention import attend_from_last, attend_together
from model.fused_linear import copy_to
from model.input_checks import check_input_ids
from model.modeling_siglip_text_embeddings import SiglipTextEmbeddings
from model.modeling_siglip_text_transformer import SiglipTextTransformer
from model.modeling_siglip_vision_fused_encoder import FusedEncoder, dtype_between_linears
from model.modeling_siglip_vision_transformer import BaseModelOutputWithPooling


class FusedTextTransformer(nn.Module):
    """A `SiglipTextTransformer` for inference; the projection is in float32.

    `dtype`, `compilable` and `consume` are as `FusedEncoder` has them.
    """

    def __init__(
        self,
        tower: SiglipTextTransformer,
        device: torch.device,
        dtype: torch.dtype,
        *,
        compilable: bool = False,
        consume: bool = False,
    ) -> None:
        super().__init__()
        between = dtype_between_linears(dtype)
        self.attend = attend_together
        self.embeddings = FusedTextEmbeddings(tower.embeddings, device, between)
        self.encoder = FusedEncoder(
            tower.encoder.layers,
            tower.final_layer_norm,
            device,
            dtype,
            compilable=compilable,
            consume=consume,
        )
        self.head = copy_to(tower.head, device, torch.float32)

    def forward(self, input_ids: torch.Tensor) -> BaseModelOutputWithPooling:
        """Encode texts: integers (batch, tokens) -> float32 (batch, projection), pooled only.

        `last_hidden_state` is of the last position alone: (batch, 1, hidden). Ids are checked as
        `check_input_ids` does, on the CPU: on another device the check would wait for it.
        """
        last_hidden_state = self.encoder(self.embeddings(input_ids), self.attend, attend_from_last)
        return BaseModelOutputWithPooling(
            last_hidden_state, self.head(last_hidden_state[:, -1].float())
        )


class FusedTextEmbeddings(nn.Module):
    """`SiglipTextEmbeddings` for inference.

    On the CPU the token table stays what it was, mapped from the checkpoint's file: it can be two
    thirds of all weights, and a text reads few of its rows.
    """

    def __init__(
        self, embeddings: SiglipTextEmbeddings, device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__()
        tokens = embeddings.token_embedding.weight.detach()
        positions = embeddings.position_embedding.weight.detach()
        self.dtype = dtype
        self.token_embedding = nn.Buffer(
            tokens if device.type == "cpu" else tokens.to(device, dtype)
        )
        self.position_embedding = nn.Buffer(positions.to(device, torch.float32, copy=True))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Embed texts: integers (batch, tokens) -> (batch, tokens, hidden)."""
        if input_ids.device.type == "cpu":
            check_input_ids(
                input_ids,
                vocab_size=len(self.token_embedding),
                max_positions=len(self.position_embedding),
            )
        tokens = nn.functional.embedding(input_ids.long(), self.token_embedding)
        positions = self.position_embedding[: input_ids.shape[1]]
        return (tokens.float() + positions).to(self.dtype)
