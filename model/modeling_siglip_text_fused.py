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
from model.tensor_rows import TensorRows


class FusedTextTransformer(nn.Module):
    """A `SiglipTextTransformer` for inference; the projection is in float32.

    `dtype` and `consume` are as `FusedEncoder` has them. `token_table` is the table as it lies in
    the checkpoint's file, see `open_token_table`: on the CPU nothing of it comes into memory then.
    Other devices take the tower's own.
    """

    def __init__(
        self,
        tower: SiglipTextTransformer,
        device: torch.device,
        dtype: torch.dtype,
        *,
        consume: bool = False,
        token_table: TensorRows | None = None,
    ) -> None:
        super().__init__()
        between = dtype_between_linears(dtype)
        self.attend = attend_together
        self.embeddings = FusedTextEmbeddings(tower.embeddings, device, between, token_table)
        self.encoder = FusedEncoder(
            tower.encoder.layers, tower.final_layer_norm, device, dtype, consume=consume
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

    The token table can be two thirds of all weights, and a text needs few of its rows. On the CPU
    it is neither copied nor cast: it stays in the file, or is what the tower had.
    """

    def __init__(
        self,
        embeddings: SiglipTextEmbeddings,
        device: torch.device,
        dtype: torch.dtype,
        token_table: TensorRows | None = None,
    ) -> None:
        super().__init__()
        tokens = embeddings.token_embedding.weight.detach()
        positions = embeddings.position_embedding.weight.detach()
        self.dtype = dtype
        self.vocab_size = len(tokens)
        on_cpu = device.type == "cpu"
        self.token_table = token_table if on_cpu else None
        self.token_embedding = (
            nn.Buffer(tokens if on_cpu else tokens.to(device, dtype))
            if self.token_table is None
            else None
        )
        self.position_embedding = nn.Buffer(positions.to(device, torch.float32, copy=True))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Embed texts: integers (batch, tokens) -> (batch, tokens, hidden)."""
        if input_ids.device.type == "cpu":
            check_input_ids(
                input_ids,
                vocab_size=self.vocab_size,
                max_positions=len(self.position_embedding),
            )
        positions = self.position_embedding[: input_ids.shape[1]]
        return (self._look_up(input_ids).float() + positions).to(self.dtype)

    def _look_up(self, input_ids: torch.Tensor) -> torch.Tensor:
        if self.token_embedding is not None:
            return nn.functional.embedding(input_ids.long(), self.token_embedding)
        assert self.token_table is not None  # noqa: S101 # one of both
        return self.token_table.look_up(input_ids)
