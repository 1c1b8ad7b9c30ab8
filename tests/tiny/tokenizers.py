"""A tokenizer that can write any text."""

from __future__ import annotations

from typing import Any

SENTENCES = (
    "The cat sleeps all day and hunts at night.",
    "Le chat dort toute la journée.",
    "猫整天睡觉，晚上捕猎。",
    "گربه تمام روز می‌خوابد.",
    "Кошка спит весь день.",
    "बिल्ली दिन भर सोती है।",
    "Yes No English question about the text above:",
    "แมวนอนทั้งวัน 😀",
)


def make_tokenizer(template: str = "", **special: str) -> Any:
    """A byte-level BPE tokenizer that can write any text; the values of `special` are its special tokens.

    With a `template` (`<s> $A </s>`) it puts them so around a text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=list(dict.fromkeys(special.values())),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    if template:
        used = {token: tokenizer.token_to_id(token) for token in special.values() if token in template}
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=list(used.items()))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **special)
