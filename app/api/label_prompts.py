"""The labels of a request to POST /classify, and the texts that stand for each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.api.classify_schemas import MAX_PROMPTS, ClassifyOptions, Label
from app.api.json_body import refuse_long_names
from app.api.text_inputs import TextLimits, is_too_large
from app.errors import (
    InvalidParameterError,
    ItemsFailedError,
    TextTooLargeError,
    TooManyLabelsError,
)

_PLACE = "{}"


@dataclass(frozen=True)
class LabelPrompts:
    """The prompts of all labels in order, and how many each label has: at least one."""

    labels: list[str]
    texts: list[str]
    counts: list[int]

    def blame_labels(self, error: ItemsFailedError) -> ItemsFailedError:
        """Say of failed prompts which labels they are of."""
        owners = np.repeat(np.arange(len(self.labels)), self.counts)
        return ItemsFailedError({int(owners[i]): own for i, own in error.details}, "label")


def refuse_too_many(content: Mapping[str, Any]) -> None:
    """Refuse what is too much to be validated: labels, templates or prompts, as they came."""
    labels = content.get("labels")
    refuse_long_names(labels)
    lists = [labels, content.get("template")]
    if isinstance(labels, list) and len(labels) <= MAX_PROMPTS:
        lists += [label.get("prompts") for label in labels if isinstance(label, dict)]
    _refuse_over_limit(max(len(each) if isinstance(each, list) else 0 for each in lists))


def make_prompts(options: ClassifyOptions, limits: TextLimits) -> LabelPrompts:
    """Make the prompts of the labels asked for.

    Raises `InvalidParameterError`, `TooManyLabelsError` or `TextTooLargeError`.
    """
    if not options.labels:
        raise InvalidParameterError(
            'the request holds no label; send JSON with "labels": ["a cat", "a dog"], or repeat '
            "labels in the form or the query, one a time",
            param="labels",
        )
    counts = [len(label.prompts or options.template) for label in options.labels]
    _refuse_over_limit(sum(counts))
    _check_templates(options.template)
    _check_names([label.label for label in options.labels])
    texts: list[str] = []
    for index, label in enumerate(options.labels):
        _check_length(label.label, index, limits)  # before a template multiplies it
        for text in _prompts_of(label, options.template):
            _check_length(text, index, limits)
            texts.append(text)
    return LabelPrompts([label.label for label in options.labels], texts, counts)


def _refuse_over_limit(prompts: int) -> None:
    if prompts > MAX_PROMPTS:
        raise TooManyLabelsError(
            f"more than {MAX_PROMPTS} prompts in one request (each label has one for each "
            "template, or its own); send fewer labels",
            param="labels",
        )


def _check_templates(templates: list[str]) -> None:
    for index, template in enumerate(templates):
        if template.count(_PLACE) != 1:
            raise InvalidParameterError(
                f"template {index} must have {_PLACE} once, where the label goes",
                param="template" if len(templates) == 1 else f"template[{index}]",
            )


def _check_names(labels: list[str]) -> None:
    seen: dict[str, int] = {}
    for index, label in enumerate(labels):
        if not label.strip():
            raise InvalidParameterError(f"label {index} is empty", param=f"labels[{index}]")
        if (first := seen.setdefault(label, index)) != index:
            raise InvalidParameterError(
                f"label {index} is label {first} again", param=f"labels[{index}]"
            )


def _prompts_of(label: Label, templates: list[str]) -> list[str]:
    # Never str.format: a label or a template would get at more than its own text.
    return label.prompts or [template.replace(_PLACE, label.label) for template in templates]


def _check_length(text: str, index: int, limits: TextLimits) -> None:
    if is_too_large(text, limits):
        raise TextTooLargeError(
            f"label {index}, or a prompt of it, has more than {limits.max_text_bytes} bytes "
            "(SIGLIP_MAX_TEXT_BYTES)",
            param=f"labels[{index}]",
        )
