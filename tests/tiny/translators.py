"""Tiny checkpoints of every kind that translates, with the real tokenizer classes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import sentencepiece as spm
import torch
import transformers
from crosslens.items import Item
from crosslens.multilingual.rewriting.translation import Translate, load_translation

from tiny.tokenizers import SENTENCES

ENGLISH = (
    "The cat sleeps all day and hunts at night.",
    "How long do cats sleep?",
    "The cat. The cat hunts! And the night is long, so long that all the cats sleep at night.",
    "cats",
    "The first line\n\n  and the second. It hunts.\n",
)


SIZE = dict(
    d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
    encoder_ffn_dim=64, decoder_ffn_dim=64, init_std=0.4,
)  # fmt: skip


def sentencepiece(where: Path, name: str, **options) -> list[str]:
    """A sentencepiece model trained on the test's sentences, as `name`; its pieces after the three special ones."""
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter([*SENTENCES, *ENGLISH] * 4),
        model_prefix=str(where / "made"),
        vocab_size=300,
        character_coverage=1.0,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    (where / "made.model").rename(where / name)
    (where / "made.vocab").unlink()
    made = spm.SentencePieceProcessor(model_file=str(where / name))
    return [made.id_to_piece(n) for n in range(3, made.get_piece_size())]


def vocabulary(where: Path, pieces: list[str]) -> int:
    (where / "vocab.json").write_text(json.dumps({piece: n for n, piece in enumerate(pieces)}))
    return len(pieces)


def saved(where: Path, config, **more) -> Path:
    torch.manual_seed(0)
    model = transformers.AutoModelForSeq2SeqLM.from_config(config).float()
    # Random models would end, or name languages, rather than say something.
    special = transformers.AutoTokenizer.from_pretrained(where).all_special_ids
    with torch.no_grad():
        model.get_output_embeddings().weight[special] = 0
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.normal_()
        model.final_logits_bias[:, special] = 0
    for key, value in more.items():
        setattr(model.generation_config, key, value)
    model.save_pretrained(where)
    return where


def marian(where: Path, marks: tuple[str, ...] = (), source="en", target="ru") -> Path:
    pieces = sentencepiece(where, "source.spm")
    sentencepiece(where, "target.spm")
    size = vocabulary(where, ["</s>", "<unk>", *marks, *pieces, "<pad>"])
    files = (str(where / "source.spm"), str(where / "target.spm"), str(where / "vocab.json"))
    transformers.MarianTokenizer(*files, source_lang=source, target_lang=target).save_pretrained(where)
    config = transformers.MarianConfig(
        vocab_size=size, max_position_embeddings=128, eos_token_id=0, bos_token_id=0, pad_token_id=size - 1,
        decoder_start_token_id=size - 1, forced_eos_token_id=0, **SIZE,
    )  # fmt: skip
    return saved(where, config, max_length=128, num_beams=4, bad_words_ids=[[size - 1]])


def m2m(where: Path) -> Path:
    pieces = sentencepiece(where, "sentencepiece.bpe.model")
    size = vocabulary(where, ["<s>", "<pad>", "</s>", "<unk>", *pieces])
    files = (str(where / "vocab.json"), str(where / "sentencepiece.bpe.model"))
    transformers.M2M100Tokenizer(*files).save_pretrained(where)
    config = transformers.M2M100Config(vocab_size=size + 108, max_position_embeddings=128, **SIZE)
    return saved(where, config)


def nllb(where: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = ["▁", *sorted(set("".join([*SENTENCES, *ENGLISH])) - set(" \n"))]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*SENTENCES, *ENGLISH] * 4, trainer)
    made = json.loads(tokenizer.to_str())["model"]
    real = transformers.NllbTokenizer(vocab=made["vocab"], merges=[tuple(pair) for pair in made["merges"]])
    real.save_pretrained(where)
    config = transformers.M2M100Config(vocab_size=len(real), max_position_embeddings=128, **SIZE)
    return saved(where, config)


def mbart(where: Path) -> Path:
    sentencepiece(where, "sp.model")
    read = spm.SentencePieceProcessor(model_file=str(where / "sp.model"))
    pieces = [(read.id_to_piece(n), read.get_score(n)) for n in range(read.get_piece_size())]
    real = transformers.MBart50Tokenizer(vocab=pieces)
    real.save_pretrained(where)
    config = transformers.MBartConfig(
        vocab_size=len(real), max_position_embeddings=128, decoder_start_token_id=2, forced_eos_token_id=2, **SIZE
    )
    return saved(where, config)


def t5_config(size: int, start: int = 0) -> transformers.T5Config:
    return transformers.T5Config(
        vocab_size=size, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, initializer_factor=4.0,
        pad_token_id=start, eos_token_id=2, decoder_start_token_id=start,
    )  # fmt: skip


def madlad(where: Path, marks: tuple[str, ...] = ("<2en>", "<2zh>", "<2zh_Latn>", "<2ru>", "<2translate>")) -> Path:
    sentencepiece(where, "spiece.model", user_defined_symbols=list(marks))
    (where / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 0}))
    transformers.T5Config().save_pretrained(where)
    real = transformers.AutoTokenizer.from_pretrained(where)
    return saved(where, t5_config(len(real) + 1, start=len(real)))


KINDS = {
    "marian": lambda where: marian(where, (">>rus<<", ">>cmn_Hant<<", ">>cmn_Hans<<"), target="mul"),
    "m2m": m2m,
    "nllb": nllb,
    "mbart": mbart,
    "madlad": madlad,
}


MARKS = {  # of English and Russian
    "marian": ("en", ">>rus<<"),
    "m2m": ("__en__", "__ru__"),
    "nllb": ("eng_Latn", "rus_Cyrl"),
    "mbart": ("en_XX", "ru_RU"),
    "madlad": ("<2en>", "<2ru>"),
}


def stage(where: Path, to: str = "rus", options: str = "") -> Translate:
    return load_translation(f"translate@hf:{where}?to={to}{options}", device="cpu")


def queries(texts=ENGLISH, lang: str | None = "eng") -> list[Item]:
    return [Item(f"q{n}", text, lang=lang, meta={"n": n}) for n, text in enumerate(texts)]


def lines(path: Path, records) -> Path:
    content = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path
