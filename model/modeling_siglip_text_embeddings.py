"""Token and position embeddings of the SigLIP text towers."""

import torch
from torch import nn

from model.config_siglip_text import SiglipTextConfig
from model.initialization import normal_
from model.input_checks import check_input_ids


class SiglipTextEmbeddings(nn.Module):
    """Token ids to vectors: a row of a table for each, plus a learned position.

    Radford et al. 2021, section 2.4; reference class `SiglipTextEmbeddings`.
    """

    def __init__(self, config: SiglipTextConfig) -> None:
        super().__init__()
        self.token_embedding = _table(config.vocab_size, config.hidden_size)
        self.position_embedding = _table(config.max_position_embeddings, config.hidden_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from the reference's distribution."""
        for table in (self.token_embedding, self.position_embedding):
            normal_(table.weight, std=table.embedding_dim**-0.5)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Embed texts: integers (batch, tokens) -> (batch, tokens, hidden).

        Raises `TypeError` or `ValueError` for what are no ids of the token table, and for more of
        them than there are positions.
        """
        check_input_ids(
            input_ids,
            vocab_size=self.token_embedding.num_embeddings,
            max_positions=self.position_embedding.num_embeddings,
        )
        positions = self.position_embedding.weight[: input_ids.shape[1]]
        # The table alone may be of another dtype: it is large, and only looked up.
        return self.token_embedding(input_ids.long()).to(positions.dtype) + positions


def _table(rows: int, width: int) -> nn.Embedding:
    """Make a table whose weights are yet to be drawn: torch would draw them another time."""
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))
