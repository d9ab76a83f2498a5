"""Train the model of this folder, from drawings made on the way: `python -m examples.shapes.train`.

First both towers learn to name what is in a scene, by linear readouts that they share and that are
thrown away: so it takes minutes, not hours. Then they learn by SigLIP's loss (Zhai et al. 2023,
algorithm 1) but for its labels: of drawings it is known which sentences are true of them, so each
true pair counts as one, not only the pairs on the diagonal.
"""

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from examples.shapes.checkpoint import (
    FOLDER,
    SIDE,
    TEMPLATES,
    WIDTH,
    build_model,
    write_checkpoint,
    write_tokenizer,
)
from examples.shapes.drawing import draw_pixels
from examples.shapes.world import (
    COLOURS,
    GROUNDS,
    OPPOSITES,
    SHAPES,
    SIZES,
    Scene,
    change_scene,
    describe,
    draw_scene,
    holds,
)
from model import SiglipModel
from model.tokenization_siglip import SiglipTokenizer

SEED = 0
BATCH = 128  # drawings; half of them are the other half with one thing changed
LEARNING_RATE = 1e-3
WARMUP_STEPS = 100


@dataclass(frozen=True)
class Batch:
    """Drawings, one sentence on each, and which sentence is true of which drawing."""

    pixel_values: torch.Tensor
    """float32 (drawings, 3, SIDE, SIDE), -1 to 1."""
    input_ids: torch.Tensor
    """int64 (sentences, TOKENS)."""
    labels: torch.Tensor
    """float32 (drawings, sentences): 1 where it is true, else -1."""


def main() -> None:
    """Train, say how it goes, and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder for the checkpoint")
    parser.add_argument("--naming-steps", type=int, default=2500)
    parser.add_argument("--steps", type=int, default=3000)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(arguments.output)
    torch.manual_seed(SEED)
    model = build_model()
    learn_to_name(model, tokenizer, arguments.naming_steps)
    train(model, tokenizer, arguments.steps)
    write_checkpoint(model, arguments.output)


def learn_to_name(model: SiglipModel, tokenizer: SiglipTokenizer, steps: int) -> None:
    """Train both towers to tell what is in a scene: each thing, how they stand, the ground."""
    random = np.random.default_rng(SEED)
    words = [len(SIZES), len(COLOURS), len(SHAPES)] * 2 + [1 + len(OPPOSITES), len(GROUNDS)]
    readouts = nn.Linear(WIDTH["hidden_size"], sum(words))
    optimizer = Optimizer([*model.parameters(), *readouts.parameters()], steps)
    for step in range(1, steps + 1):
        scenes = [draw_scene(random) for _ in range(BATCH)]
        texts = [put_in_words(s if random.random() < 0.5 else s.turn(), random) for s in scenes]
        # Of two things the left or upper one is the first.
        turned = [s.turn() if s.relation in ("right of", "below") else s for s in scenes]
        targets = torch.tensor([scene.encode() for scene in turned])
        targets[:, 6] += 1  # a thing alone is an answer too
        images = model.get_image_features(draw_pixel_values(scenes, random))
        sentences = model.get_text_features(torch.as_tensor(tokenizer(texts)))
        answers = readouts(torch.stack([images, sentences])).split(words, dim=-1)
        losses = [
            nn.functional.cross_entropy(answer.flatten(0, 1), target.repeat(2), ignore_index=-1)
            for answer, target in zip(answers, targets.T, strict=True)
        ]
        loss = torch.stack(losses).sum()
        optimizer.step(loss)
        if step % 100 == 0:
            optimizer.report(step, loss)


def train(model: SiglipModel, tokenizer: SiglipTokenizer, steps: int) -> None:
    """Train both towers by the sigmoid loss."""
    optimizer = Optimizer(list(model.parameters()), steps)
    for step, batch in zip(range(1, steps + 1), draw_batches(tokenizer), strict=False):
        output = model(batch.input_ids, batch.pixel_values)
        loss = -nn.functional.logsigmoid(batch.labels * output.logits_per_image).sum() / BATCH
        optimizer.step(loss)
        if step % 100 == 0:
            found = find_drawings(output.logits_per_text, batch)
            optimizer.report(step, loss, f"precision@1 {found:.2f}")


class Optimizer:
    """AdamW under a cosine schedule with a warm-up, and gradients of length 1 at most."""

    def __init__(self, parameters: list[nn.Parameter], steps: int) -> None:
        self._parameters = parameters
        self._optimizer = torch.optim.AdamW(
            parameters, LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer,
            lambda step: min(
                (step + 1) / WARMUP_STEPS, 0.5 + 0.5 * math.cos(math.pi * step / steps)
            ),
        )
        self._start = time.monotonic()

    def step(self, loss: torch.Tensor) -> None:
        """Change the parameters by the gradients of a loss."""
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._parameters, 1)
        self._optimizer.step()
        self._schedule.step()

    def report(self, step: int, loss: torch.Tensor, more: str = "") -> None:
        """Print how far it has come."""
        minutes = (time.monotonic() - self._start) / 60
        print(f"{step:5} loss {loss.item():6.3f} {minutes:5.1f} min {more}", flush=True)


def draw_batches(tokenizer: SiglipTokenizer) -> Iterator[Batch]:
    """Draw batches without end."""
    random = np.random.default_rng(SEED + 1)
    while True:
        scenes = [draw_scene(random) for _ in range(BATCH // 2)]
        scenes += [change_scene(scene, random) for scene in scenes]
        said = [describe(scene, random) for scene in scenes]
        texts = [put_in_words(words, random) for words in said]
        truth = holds(
            np.array([words.encode() for words in said], np.int8),
            np.array([scene.encode() for scene in scenes], np.int8),
        )
        yield Batch(
            draw_pixel_values(scenes, random),
            torch.as_tensor(tokenizer(texts)),
            torch.from_numpy(truth.T * 2.0 - 1).float(),
        )


def put_in_words(description: Scene, random: np.random.Generator) -> str:
    """Say a description as people and templates do."""
    return TEMPLATES[random.integers(len(TEMPLATES))].format(description)


def draw_pixel_values(scenes: Sequence[Scene], random: np.random.Generator) -> torch.Tensor:
    """Draw scenes as the processor gives them: float32 (scenes, 3, SIDE, SIDE), -1 to 1."""
    pixels = np.stack([draw_pixels(scene, random, SIDE) for scene in scenes])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous() / 127.5 - 1


def find_drawings(logits_per_text: torch.Tensor, batch: Batch) -> float:
    """Return the share of sentences that are true of the drawing that fits them best."""
    best = logits_per_text.argmax(1, keepdim=True)
    return float((batch.labels.T.gather(1, best) > 0).float().mean())


if __name__ == "__main__":
    main()
