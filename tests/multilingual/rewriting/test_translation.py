"""Translation: tiny checkpoints of every kind with the real tokenizer classes, prompts, files, and a killed command."""

from __future__ import annotations

import gzip
import json
import math
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
import transformers
from crosslens.checkpoints.offline import packages as offline
from crosslens.errors import InputError
from crosslens.indexes.registry import create_index
from crosslens.items import Item
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.judges import Completion
from crosslens.multilingual.rewriting import translation
from crosslens.multilingual.rewriting.pieces import packed, parted, piecewise, sentences
from crosslens.multilingual.rewriting.translation import Translate, Translated, load_translation
from crosslens.multilingual.rewriting.translation_files import translate_collection
from crosslens.multilingual.rewriting.translation_models import (
    TrainedTranslator,
    _preferred,
    is_trained,
)
from crosslens.multilingual.rewriting.translation_prompt import PromptedTranslator, cleaned, prompt
from crosslens.runs import Hit, Run
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny.tokenizers import SENTENCES

spm = pytest.importorskip("sentencepiece")


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
        vocab_size=len(real),
        max_position_embeddings=128,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
        **SIZE,
    )
    return saved(where, config)


def t5_config(size: int, start: int = 0) -> transformers.T5Config:
    return transformers.T5Config(
        vocab_size=size, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, initializer_factor=4.0,
        pad_token_id=start, eos_token_id=2, decoder_start_token_id=start,
    )  # fmt: skip


def madlad(
    where: Path, marks: tuple[str, ...] = ("<2en>", "<2zh>", "<2zh_Latn>", "<2ru>", "<2translate>")
) -> Path:
    sentencepiece(where, "spiece.model", user_defined_symbols=list(marks))
    (where / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 0})
    )
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


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    made: dict[str, Path] = {}

    def at(kind: str) -> Path:
        if kind not in made:
            made[kind] = KINDS[kind](tmp_path_factory.mktemp(kind))
        return made[kind]

    return at


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request):
    return request.param


def stage(where: Path, to: str = "rus", options: str = "") -> Translate:
    return load_translation(f"translate@hf:{where}?to={to}{options}", device="cpu")


def queries(texts=ENGLISH, lang: str | None = "eng") -> list[Item]:
    return [Item(f"q{n}", text, lang=lang, meta={"n": n}) for n, text in enumerate(texts)]


# --- trained models


def test_every_kind_is_recognised_loaded_and_translates(checkpoints, kind):
    where = checkpoints(kind)
    assert is_trained(str(where))
    made = stage(where)
    assert isinstance(made.translator, TrainedTranslator)
    assert made.translator.model.dtype is torch.float32
    first = Run.of(queries()).ranking({"q0": [("d1", 1.0)]})
    done = made(first)
    assert [query.id for query in done.queries] == ["q0", "q1", "q2", "q3", "q4"]
    assert {query.lang for query in done.queries} == {"rus"}
    assert [query.meta for query in done.queries] == [{"n": n} for n in range(5)]
    assert done["q0"] == (Hit("d1", 1.0),)
    assert all(old.text != new.text for old, new in zip(first.queries, done.queries, strict=True))
    assert done.queries[4].text.count("\n") == 3  # lines stay lines
    (record,) = done.manifest.records
    assert record.stage == f"translate(hf:{where}, to=rus)"
    assert record.models == {f"hf:{where}": made.translator.revision}
    assert record.counts["translated"] == 5
    assert record.counts["prompt_tokens"] > 0 < record.counts["generated_tokens"]


def test_the_model_is_told_both_languages_in_its_own_way(checkpoints, kind, monkeypatch):
    translator = stage(checkpoints(kind)).translator
    tokenizer = translator.tokenizer
    plain, seen = translator.model.generate, []

    def generate(**given):
        out = plain(**given)
        seen.append((given["input_ids"].tolist(), out.tolist()))
        return out

    monkeypatch.setattr(translator.model, "generate", generate)
    (said,) = translator.translate(["The cat sleeps"], ["eng"], "rus")
    ((asked,), (answer,)) = seen[0]
    source, target = MARKS[kind]
    read = tokenizer.convert_ids_to_tokens(asked)
    assert read[-1] == "</s>"
    assert "".join(read[1:-1]).replace("▁", " ").strip() == "The cat sleeps"
    if kind in ("marian", "madlad"):
        assert read[0] == target
        forced = []
    else:
        assert read[0] == source
        forced = [target]
    assert answer[0] == translator.model.config.decoder_start_token_id
    assert tokenizer.convert_ids_to_tokens(answer[1 : 1 + len(forced)]) == forced
    # What was forced is not said.
    assert said == " ".join(tokenizer.decode(answer[1 + len(forced) :], skip_special_tokens=True).split())
    # Another target is another token.
    other = load_translation(f"hf:{checkpoints(kind)}", to="zho", device="cpu")
    other.translator.translate(["The cat sleeps"], ["eng"], "zho")
    ((asked,), (answer,)) = seen[-1]
    chinese = {
        "marian": ">>cmn_Hans<<",
        "m2m": "__zh__",
        "nllb": "zho_Hans",
        "mbart": "zh_CN",
        "madlad": "<2zh>",
    }
    marked = asked[0] if kind in ("marian", "madlad") else answer[1]
    assert tokenizer.convert_ids_to_tokens([marked]) == [chinese[kind]]
    assert other.translator is translator  # one model for several languages


@pytest.mark.parametrize(
    ("kind", "beams"), [("marian", 3), ("m2m", 1), ("nllb", 1), ("nllb", 3), ("mbart", 1), ("madlad", 3)]
)
def test_alone_is_as_in_a_batch_and_order_is_kept(checkpoints, kind, beams):
    translator = stage(checkpoints(kind), options=f"&beams={beams}").translator
    texts = [ENGLISH[1], "The cat. It hunts!\n at night", "cats", ENGLISH[1], "猫", "12345 ---"]
    chinese = "zho" if translator.sources is None or "zho" in translator.sources else "eng"
    sources = [*["eng"] * 4, chinese, "eng"]
    together = translator.translate(texts, sources, "rus")
    alone = [
        translator.translate([text], [source], "rus")[0] for text, source in zip(texts, sources, strict=True)
    ]
    assert together == alone
    backwards = translator.translate(texts[::-1], sources[::-1], "rus")
    assert backwards == together[::-1]
    assert together[3] == together[0]
    assert together[5] == "12345 ---"  # nothing in it to translate
    translator.budget = 1  # every piece in a batch of its own
    assert translator.translate(texts, sources, "rus") == together


def test_beams_and_languages_are_part_of_the_fingerprint(checkpoints):
    where = checkpoints("nllb")
    assert stage(where).fingerprint == stage(where).fingerprint
    assert stage(where) == stage(where)
    others = (stage(where, "zho"), stage(where, options="&beams=2"))
    assert len({each.fingerprint for each in (stage(where), *others)}) == 3


def test_long_sentences_are_cut_and_counted_and_nothing_is_lost(checkpoints, monkeypatch):
    translator = stage(checkpoints("m2m")).translator
    long = "so long, that the cat sleeps all the night; " * 30
    seen = []

    def said(pieces, to):
        seen.extend(text for text, _ in pieces)
        return [text.upper() for text, _ in pieces]

    monkeypatch.setattr(translator, "_said", said)
    before = translator.usage["split_sentences"]
    assert translator.translate([long], ["eng"], "rus") == [long.upper()]
    assert translator.usage["split_sentences"] == before + 1
    lengths = [len(translator.tokenizer(text)["input_ids"]) for text in seen]
    assert max(lengths) <= 128
    assert all(text.endswith((";", ",")) for text in seen)


def test_answers_without_end_and_empty_ones_are_counted_and_the_text_kept(checkpoints, monkeypatch):
    where = checkpoints("marian")
    made = stage(where)
    end = made.translator.model.config.eos_token_id

    def generate(*, input_ids, max_new_tokens, **_):
        rows = [
            [0, end, *[end] * (max_new_tokens - 1)] if len(row) < 7 else [0, *[9] * max_new_tokens]
            for row in input_ids
        ]
        return torch.tensor(rows)

    monkeypatch.setattr(made.translator.model, "generate", generate)
    made.translator.budget = 1
    done = made(queries(["cats", "The cat sleeps all day and hunts at night."]))
    counts = done.manifest.records[0].counts
    assert counts["empty"] == counts["untranslated"] == counts["cut_answers"] == counts["translated"] == 1
    assert done.queries[0] == queries(["cats"])[0]  # text and language as they were
    assert done.queries[1].lang == "rus"


def test_out_of_memory_halves_the_batch(checkpoints, monkeypatch):
    translator = stage(checkpoints("nllb")).translator
    expected = translator.translate(ENGLISH, ["eng"] * 5, "rus")
    plain, sizes = translator._generated, []

    def scarce(asked, first):
        sizes.append(len(asked))
        if len(asked) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return plain(asked, first)

    monkeypatch.setattr(translator, "_generated", scarce)
    assert translator.translate(ENGLISH, ["eng"] * 5, "rus") == expected
    assert max(sizes) > 1


def test_one_direction_is_checked(tmp_path):
    where = marian(tmp_path, source="zho", target="eng")
    with pytest.raises(InputError, match=r"does not translate into rus, only into eng"):
        stage(where, "rus")
    made = stage(where, "eng")
    with pytest.raises(InputError, match=r"translates from zho only, and not q0 \(rus\)"):
        made([Item("q0", "Кошка спит", lang="rus")])
    # What was only identified is taken for unknown, and the model has but one language to read.
    assert made([Item("q0", "Кошка спит весь день и всю ночь.")]).queries[0].lang == "eng"


def test_groups_of_languages_leave_the_direction_open(tmp_path):
    unknown = marian(tmp_path, source="ROMANCE", target="mul")
    assert stage(unknown, "deu").translator.sources is None


def test_languages_that_cannot_be_told_are_counted_where_they_must_be(checkpoints):
    made = stage(checkpoints("nllb"))
    odd = [
        Item("q", "Xq"),
        Item("p", image=b"..."),
        Item("r", "Кошка спит весь день.", lang="rus"),
        Item("s", " "),
    ]
    done = made(odd)
    counts = done.manifest.records[0].counts
    assert done.queries == tuple(odd)
    assert counts["unknown_language"] == counts["untranslated"] == counts["already"] == 1
    assert counts["without_text"] == 2
    with pytest.raises(InputError, match=r"translates from .* only, and not q \(tlh\)"):
        made([Item("q", "Qapla'", lang="tlh")])


def test_codes_of_languages_are_read_off_the_vocabulary(checkpoints):
    nllb_codes = stage(checkpoints("nllb")).translator._codes
    wanted = {"zho": "zho_Hans", "fas": "pes_Arab", "ara": "arb_Arab", "aze": "azj_Latn", "aka": "aka_Latn", "nor": "nob_Latn",
              "swa": "swh_Latn", "kas": "kas_Arab", "msa": "zsm_Latn", "yue": "yue_Hant", "ary": "ary_Arab", "srp": "srp_Cyrl"}  # fmt: skip
    assert {code: nllb_codes[code] for code in wanted} == wanted
    assert len(nllb_codes) == 194
    m2m_codes = stage(checkpoints("m2m")).translator._codes
    assert (m2m_codes["zho"], m2m_codes["fas"], len(m2m_codes)) == ("zh", "fa", 99)
    mbart_codes = stage(checkpoints("mbart")).translator._codes
    assert (mbart_codes["zho"], mbart_codes["fas"], len(mbart_codes)) == ("zh_CN", "fa_IR", 52)
    assert stage(checkpoints("madlad")).translator._codes == {"eng": "en", "zho": "zh", "rus": "ru"}
    from crosslens.multilingual.rewriting.translation_models import _MARKS

    groups = [">>cmn_Hant<<", ">>zho<<", ">>cmn_Hans<<", ">>sr_Latn<<", ">>sr<<", ">>x<<", "rus", ">>qqq<<"]
    assert _preferred(groups, _MARKS["marian"]) == {"zho": "cmn_Hans", "srp": "sr"}


# --- prompted models


class Saying:
    """A judge that says what it is told to."""

    modalities = frozenset({"text"})
    can = frozenset({"generate", "choose"})
    appetite = 8
    name, revision, fingerprint = "saying", "0", "saying/0"

    def __init__(self, say, chats=True):
        self.say, self.chats = say, chats
        self.usage = Counter()
        self.seen = []

    def generate(self, prompts, *, max_new_tokens=64, stop=(), temperature=0.0, seed=0):
        self.usage["calls"] += len(prompts)
        self.seen += [(each, max_new_tokens, stop) for each in prompts]
        return [Completion(self.say(each.user()), 3) for each in prompts]


def test_prompts_name_both_languages_in_english():
    assert prompt("Кошка спит", "rus", "eng").user() == (
        "Translate from Russian to English. Write only the translation.\n\nRussian: Кошка спит\nEnglish:"
    )
    assert prompt("Кошка {спит}", None, "fas").user() == (
        "Translate into Persian. Write only the translation.\n\nText: Кошка {спит}\nPersian:"
    )
    assert prompt("x", "zho", "eng").chat == "auto"


def test_a_judge_is_asked_in_pieces_and_its_answers_are_put_together():
    def say(asked: str) -> str:
        return "Translation: " + asked.rpartition("English: ")[2].removesuffix("\nRussian:").upper()

    text = "One day. " * 200 + "\nTwo.\n\nThree"
    judge = Saying(say)
    done = Translate(PromptedTranslator(judge), "ru")(
        [Item("q", text, lang="eng"), Item("p", "cat", lang="eng")]
    )
    assert [query.text for query in done.queries] == [text.upper(), "CAT"]
    assert {query.lang for query in done.queries} == {"rus"}
    assert len(judge.seen) == 3  # 1,800 characters are two chunks
    assert all(stop == () for *_, stop in judge.seen)
    assert done.manifest.records[0].counts["calls"] == 3
    base = Saying(say, chats=False)  # goes on from where a text ends: a line at a time
    again = Translate(PromptedTranslator(base), "rus")([Item("q", text, lang="eng")])
    assert again.queries[0].text == text.upper()
    assert len(base.seen) == 4
    assert all(stop == ("\n",) for *_, stop in base.seen)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [("", "empty"), ("  \n ", "empty"), ("<think>hm, a cat", "empty"), ("...!", "unreadable")],
)
def test_empty_and_unreadable_answers_are_counted_and_the_query_kept(answer, kind):
    query = Item("q", "The cat sleeps", lang="eng")
    done = Translate(PromptedTranslator(Saying(lambda _: answer)), "rus")([query])
    assert done.queries == (query,)
    counts = done.manifest.records[0].counts
    assert counts[kind] == counts["untranslated"] == 1
    assert not counts.get("translated")


@pytest.mark.parametrize(
    ("answer", "text", "wanted"),
    [
        (" Кошка спит\n", "The cat sleeps", "Кошка спит"),
        ("Translation: Кошка спит", "The cat sleeps", "Кошка спит"),
        ("**Translation:** Кошка спит", "The cat sleeps", "Кошка спит"),
        ("Russian: Кошка спит\nEnglish: The cat sleeps", "The cat sleeps", "Кошка спит"),
        ("Sure, here is the translation into Russian:\n\n«Кошка спит»", "The cat sleeps", "Кошка спит"),
        ("Here you are:\nКошка спит", "The cat sleeps", "Кошка спит"),
        ("```\nКошка спит\n```", "The cat sleeps", "Кошка спит"),
        ("<think>\nкошка?\n</think>\n\nКошка спит\n\nNote: literally.", "The cat sleeps", "Кошка спит"),
        ('"Кошка спит"', '"The cat sleeps"', '"Кошка спит"'),
        ('"Кошка" и "пёс"', "The cat and the dog", '"Кошка" и "пёс"'),
        ("Here is the list: a, b", "Вот список: a, b", "Here is the list: a, b"),
        ("Of course: yes", "Конечно: да", "Of course: yes"),
        ("Translation: a history", "Translation: a history (in French)", "Translation: a history"),
        ("Первая\n\nВторая", "First\n\nSecond", "Первая\n\nВторая"),
        ('"', "quote", '"'),
        ("Translation:", "x", "Translation:"),
    ],
)  # fmt: skip
def test_answers_are_made_clean(answer, text, wanted):
    assert cleaned(answer, text, "Russian") == wanted


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(['"', "«", "»", "Translation:", "Russian:", "\n", "\n\n", "```", " ", "Sure:", "кот", "'", "“", "”"]) | st.text(max_size=6)).map("".join),
    st.text(max_size=12),
)  # fmt: skip
def test_cleaning_never_fails_and_leaves_something_of_something(answer, text):
    said = cleaned(answer, text, "Russian")
    assert bool(said) == bool(answer.strip())
    assert said == said.strip()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["The cat. ", "Mr. Smith", "猫。", "\n", " ", "a", "?! ", "。”", "۔", ", ", "\r\n"]) | st.text(max_size=5)).map("".join))  # fmt: skip
def test_pieces_joined_are_the_text(text):
    whole = list(sentences(text))
    assert "".join(whole) == text
    assert all(whole)
    parts = [part for each in whole for part in parted(each, lambda part: len(part) <= 5)]
    assert "".join(parts) == text
    assert all(len(part) <= 5 for part in parts)
    for lines in (True, False):
        assert "".join(packed(whole, 9, lines=lines)) == text
    usage: Counter[str] = Counter()
    same = piecewise(
        [text], [None], "eng", lambda each, _: [each], lambda pieces: [p for p, _ in pieces], usage
    )
    assert same == [text]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The cat. It hunts! Really? Yes", ["The cat. ", "It hunts! ", "Really? ", "Yes"]),
        (
            "Mr. Smith met U.S. Army men at 3.5 p.m. on Monday.",
            ["Mr. Smith met U.S. Army men at 3.5 p.m. on Monday."],
        ),
        ("In 2020. Then", ["In 2020. ", "Then"]),
        ("猫睡觉。它捕猎！“好。”完", ["猫睡觉。", "它捕猎！", "“好。”", "完"]),
        ("बिल्ली। कुत्ता", ["बिल्ली। ", "कुत्ता"]),
        ("a\n\nb", ["a\n", "\n", "b"]),
    ],
)
def test_sentences_end_where_people_end_them(text, wanted):
    assert list(sentences(text)) == wanted


def test_sentences_meet_as_the_language_writes_them():
    def say(pieces):
        return [
            {"猫睡觉。": "The cat sleeps.", "它捕猎。": "It hunts."}.get(text, "猫。") for text, _ in pieces
        ]

    def both(text, to):
        return piecewise([text], ["x"], to, lambda each, _: list(sentences(each)), say, Counter())[0]

    assert both("猫睡觉。它捕猎。\n猫睡觉。", "eng") == "The cat sleeps. It hunts.\nThe cat sleeps."
    assert both("The cat. The dog.\nThe end.", "zho") == "猫。猫。\n猫。"


def test_pieces_without_words_stay_and_are_counted():
    usage: Counter[str] = Counter()
    cut = lambda each, _: list(sentences(each))  # noqa: E731
    say = lambda pieces: ["Кот." if "cat" in text else "" for text, _ in pieces]  # noqa: E731
    assert piecewise(["A cat. A dog. ", "A dog."], ["eng"] * 2, "rus", cut, say, usage) == [
        "Кот. A dog. ",
        "",
    ]
    assert usage["untranslated_pieces"] == 1


def test_a_causal_checkpoint_and_a_plain_t5_are_prompted(tiny_judge, tmp_path):
    made = load_translation(f"translate@hf:{tiny_judge}?to=ru&dtype=float32", device="cpu")
    assert isinstance(made.translator, PromptedTranslator)
    assert not is_trained(str(tiny_judge))
    done = made(queries(["How long do cats sleep?", "cats"]))
    counts = done.manifest.records[0].counts
    assert counts["calls"] == 2 == counts.get("translated", 0) + counts.get("untranslated", 0)
    plain = madlad(tmp_path, marks=("<2translate>",))
    assert not is_trained(str(plain))
    assert isinstance(stage(plain).translator, PromptedTranslator)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("translat@hf:{nllb}?to=rus", "unknown method .* did you mean translate"),
        ("translate@hf:{nllb}", "does not say into which language"),
        ("translate@hf:{nllb}?to=tlh", "does not translate into tlh"),
        ("translate@hf:{nllb}?to=xx", "unknown language 'xx'"),
        ("translate@hf:{nllb}?to=rus&beems=3", r"unknown option .*'beems'; did you mean beams\? \(known: beams, dtype, revision, to\)"),
        ("translate@hf:{nllb}?to=rus&beams=0", "beams must be at least 1"),
        ("translate@hf:{causal}?to=rus&beams=2", "unknown option .*'beams'"),
        ("translate@nope:x?to=rus", "unknown judge family 'nope'"),
        ("translate@hf:/no/such?to=rus", "there is no directory /no/such"),
        ("translate@hf:{classifier}?to=rus", "writes no text and cannot translate"),
    ],
)  # fmt: skip
def test_mistakes_in_a_spec_are_one_line(checkpoints, tiny_judge, tiny_encoder, tmp_path, text, complaint):
    if "{classifier}" in text:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_encoder, num_labels=1)
        model.save_pretrained(tmp_path)
        transformers.AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(tmp_path)
    spec = text.format(nllb=checkpoints("nllb"), causal=tiny_judge, classifier=tmp_path)
    with pytest.raises(InputError, match=complaint) as error:
        load_translation(spec, device="cpu")
    assert "\n" not in str(error.value)


def test_pickled_weights_and_a_missing_package_are_named(checkpoints, tmp_path, monkeypatch):
    for file in checkpoints("marian").iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled weights only .*AutoModelForSeq2SeqLM"):
        stage(tmp_path)
    from crosslens.multilingual.rewriting import translation_models

    def lacks(*_):
        raise InputError(
            "MarianTokenizer requires the SentencePiece library. Check out the instructions on the"
        )

    monkeypatch.setattr(translation_models.Source, "load_tokenizer", lacks)
    with pytest.raises(InputError, match="Check out"):  # it is installed here: something else is wrong
        stage(checkpoints("marian"))
    monkeypatch.setattr(translation_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs sentencepiece and protobuf"):
        stage(checkpoints("marian"))


def test_two_targets_are_refused(checkpoints):
    with pytest.raises(InputError, match="translates into rus, and zho was asked for"):
        load_translation(f"translate@hf:{checkpoints('nllb')}?to=rus", to="zh", device="cpu")


def test_offline_gemma_translates_for_real():
    if not offline.is_available("gemma"):
        pytest.skip("the package of offline:gemma is not installed")
    made = load_translation("translate@offline:gemma?to=eng", device="cpu")
    done = made([Item("a", "Кошка спит весь день.", lang="rus"), Item("b", "cats", lang="eng")])
    assert done.queries[1] == Item("b", "cats", lang="eng")
    counts = done.manifest.records[0].counts
    assert counts["calls"] == counts["already"] == 1
    assert counts.get("translated", 0) + counts.get("untranslated", 0) == 1
    assert done.queries[0].text.strip()
    assert "\n" not in done.queries[0].text


# --- translations from files


def lines(path: Path, records) -> Path:
    content = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "t.tsv", "t.tsv.gz"])
def test_translations_are_read_from_files(tmp_path, name):
    said = {"q0": "Кошка спит", "q1": "Как долго?"}
    if "tsv" in name:
        content = "".join(f"{id}\t{text}\n" for id, text in said.items()).encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        made = Translated(tmp_path / name, "ru")
    else:
        lines(tmp_path / name, [{"id": id, "text": text, "lang": "ru"} for id, text in said.items()])
        made = Translated(tmp_path / name)
        assert made == Translated(tmp_path / name, "rus")
    asked = [*queries(ENGLISH[:2]), Item("p", image=b"..."), Item("r", "Уже", lang="rus")]
    first = Run.of(asked).ranking({"q1": [("d", 1.0)]})
    done = made(first)
    assert [query.text for query in done.queries] == ["Кошка спит", "Как долго?", None, "Уже"]
    assert [query.lang for query in done.queries] == ["rus", "rus", None, "rus"]
    assert done.queries[0].meta == {"n": 0}
    assert done["q1"] == (Hit("d", 1.0),)
    assert done.manifest.records[0].counts == {"translated": 2, "without_text": 1, "already": 1}
    with pytest.raises(InputError, match=r"lacks the translations of 2 of 3 queries: q2, q3"):
        made([*queries(ENGLISH[1:4], "eng")[:1], Item("q2", "x", lang="eng"), Item("q3", "y", lang="eng")])


def test_what_counts_of_a_file_is_its_content(tmp_path):
    record = {"id": "q0", "text": "Кошка", "lang": "rus"}
    one = Translated(lines(tmp_path / "a.jsonl", [record]))
    assert one.fingerprint == Translated(lines(tmp_path / "b.jsonl", [record])).fingerprint
    assert one.fingerprint == Translated(lines(tmp_path / "a.jsonl.gz", [record])).fingerprint
    other = Translated(lines(tmp_path / "a.jsonl", [{**record, "text": "Кот"}]))
    assert one.fingerprint != other.fingerprint
    assert str(one) == "translated(a.jsonl, to=rus)"


def test_one_of_several_languages_is_chosen(tmp_path):
    both = [{"id": "q0", "text": "Кошка", "lang": "rus"}, {"id": "q0", "text": "猫", "lang": "zho"}]
    path = lines(tmp_path / "both.jsonl", both)
    assert Translated(path, "zho")(queries(ENGLISH[:1])).queries[0].text == "猫"
    assert Translated(path, "zho").fingerprint != Translated(path, "rus").fingerprint
    with pytest.raises(InputError, match="translations into rus, zho: say which"):
        Translated(path)
    with pytest.raises(InputError, match="no translations into fas, only into rus, zho"):
        Translated(path, "fas")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("t.jsonl", '{"id": "a", "text": "x", "lang": "eng"}\n{"id": "a"', r"t.jsonl:2: malformed JSON"),
        ("t.jsonl", '{"id": "a", "text": "x"}', "t.jsonl:1: the translation of 'a' tells no language"),
        ("t.jsonl", '{"text": "x", "lang": "eng"}', "t.jsonl:1: no id"),
        ("t.jsonl", '{"id": "a", "text": " ", "lang": "eng"}', "t.jsonl:1: the translation of 'a' has no text"),
        ("t.jsonl", '{"id": "a", "text": "x", "lang": "xx"}', "t.jsonl:1: unknown language 'xx'"),
        ("t.jsonl", '{"id":"a","text":"x","lang":"en"}\n{"id":"a","text":"y","lang":"en"}', "t.jsonl:2: a second translation of 'a' into eng"),
        ("t.jsonl", "", "has no translations"),
        ("t.tsv", "a x\n", r"t.tsv:1: not a line `id<TAB>text`"),
        ("t.tsv", "a\tx\n", "t.tsv:1: the translation of 'a' tells no language"),
        ("t.jsonl.gz", "not gzip", "cannot read the translations"),
        (None, None, "cannot read the translations"),
    ],
)  # fmt: skip
def test_bad_files_are_one_line(tmp_path, name, content, complaint):
    path = tmp_path / (name or "none.jsonl")
    if name:
        path.write_text(content)
    with pytest.raises(InputError, match=complaint) as error:
        Translated(path)
    assert "\n" not in str(error.value)


# --- the command


DOCS = [
    {"id": f"d{n}", "title": f"The cat {n}", "text": f"The cat sleeps {n} times. It hunts!", "lang": "eng", "url": f"http://x/{n}"}
    for n in range(40)
] + [
    {"id": "r", "text": "Кошка спит весь день.", "lang": "rus"},
    {"id": "s", "text": "12345", "lang": "eng", "date": "2020"},
]  # fmt: skip


@pytest.fixture
def collection(tmp_path) -> Path:
    where = tmp_path / "collection"
    where.mkdir()
    lines(where / "docs.jsonl", DOCS)
    lines(
        where / "topics.jsonl", [{"id": "t1", "text": "How long do cats sleep?", "lang": "eng", "note": "x"}]
    )
    return where


def test_documents_become_a_collection_that_is_indexed(crosslens, collection, checkpoints, tmp_path):
    made = tmp_path / "russian"
    made.mkdir()
    arguments = ("translate", collection, "-o", made / "docs.jsonl", "--to", "ru", "--with", f"hf:{checkpoints('m2m')}", "--device", "cpu")  # fmt: skip
    status, out, err = crosslens(*arguments, "--json")
    assert status == 0, err
    report = json.loads(out)
    assert (report["lines"], report["resumed"], report["to"]) == (42, 0, "rus")
    assert report["counts"]["translated"] == 41
    assert report["counts"]["already"] == 1
    assert sorted(path.name for path in made.iterdir()) == ["docs.jsonl", "docs.jsonl.manifest.json"]
    manifest = json.loads((made / "docs.jsonl.manifest.json").read_text())
    assert manifest["models"] == report["models"]
    assert manifest["counts"] == report["counts"]
    records = [json.loads(line) for line in (made / "docs.jsonl").read_text().splitlines()]
    assert [record["id"] for record in records] == [record["id"] for record in DOCS]
    first = records[0]
    assert first["title"] != DOCS[0]["title"]
    assert first["text"] != DOCS[0]["text"]
    assert (first["lang"], first["source"], first["url"]) == ("rus", "eng", "http://x/0")
    assert records[40] == {**DOCS[40], "source": "rus"}
    assert (records[41]["text"], records[41]["time"]) == ("12345", "2020")
    # Title and text are each translated by themselves.
    translator = load_translation(f"hf:{checkpoints('m2m')}", to="rus", device="cpu").translator
    assert translator.translate([DOCS[0]["title"], DOCS[0]["text"]], ["eng"] * 2, "rus") == [
        first["title"],
        first["text"],
    ]
    read = list(load_collection(made).docs())
    assert {item.lang for item in read} == {"rus"}
    assert read[0].text == f"{first['title']}\n{first['text']}"
    status, out, err = crosslens("search", made, "x")
    assert status == 2
    index = create_index(tmp_path / "index", name="russian")
    assert index.add(read, []) == 42
    assert len(index) == 42
    index.build()
    found = index.retriever("lexical", 3)([Item("q", first["text"], lang="rus")])
    assert found["q"]
    # A finished file is gone on with: nothing is translated again.
    status, out, err = crosslens(*arguments, "--json")
    assert status == 0, err
    again = json.loads(out)
    assert (again["lines"], again["resumed"], again["counts"]) == (42, 42, report["counts"])


def test_a_killed_translation_goes_on_and_translates_nothing_twice(
    crosslens, collection, checkpoints, tmp_path
):
    output = tmp_path / "russian.jsonl"
    partial = tmp_path / ".russian.jsonl.partial"
    arguments = ["translate", str(collection), "-o", str(output), "--to", "rus", "--with", f"hf:{checkpoints('m2m')}", "--device", "cpu"]  # fmt: skip
    slow = (
        "import sys, time; from crosslens.commands import app as cli; from crosslens.multilingual.rewriting import translation_files as files\n"
        "from crosslens.multilingual.rewriting.translation_models import TrainedTranslator as T\n"
        "files.WINDOW = 2\n"
        "plain = T.translate\n"
        "def translate(self, *a):\n    time.sleep(0.2)\n    return plain(self, *a)\n"
        "T.translate = translate\n"
        f"sys.argv = ['crosslens', *{arguments!r}]\n"
        "cli.main()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", slow], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    waited = time.monotonic()
    while not (partial.exists() and partial.read_bytes().count(b"\n") >= 4):
        assert child.poll() is None, child.stderr.read()
        assert time.monotonic() - waited < 120
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not output.exists()
    kept = partial.read_bytes()
    there = kept.count(b"\n")
    assert 4 <= there < 42
    # Another translator or language than began it is refused, and nothing is touched.
    for change in (
        ["--to", "zho"],
        ["--with", f"hf:{checkpoints('nllb')}"],
        ["--with", f"hf:{checkpoints('m2m')}?beams=2"],
    ):
        status, _, err = crosslens(*arguments, *change)
        assert status == 2
        assert "was made with other" in err
        assert len(err.splitlines()) == 1
    assert partial.read_bytes() == kept
    # A line that the kill cut short, in the middle of a character.
    partial.write_bytes(kept + '{"id": "d39", "text": "к'.encode()[:-1])
    status, out, err = crosslens(*arguments, "--json")
    assert status == 0, err
    report = json.loads(out)
    assert (report["lines"], report["resumed"]) == (42, there)
    assert not partial.exists()
    assert output.read_bytes().startswith(kept)
    whole = tmp_path / "whole.jsonl"
    arguments[3] = str(whole)
    assert crosslens(*arguments)[0] == 0
    assert whole.read_bytes() == output.read_bytes()


def test_what_is_there_is_never_translated_again(collection, tmp_path):
    judge = Saying(lambda asked: "Кот")
    made = Translate(PromptedTranslator(judge), "rus")
    output = tmp_path / "russian.jsonl"
    source = load_collection(collection)
    told = []
    translate_collection(source, output, made, progress=told.append)
    assert told == [42]
    asked = judge.usage["calls"]
    lines(collection / "docs.jsonl", [*DOCS, {"id": "new", "text": "A cat", "lang": "eng"}])
    report = translate_collection(source, output, made)
    assert (report.lines, report.resumed) == (43, 42)
    assert judge.usage["calls"] == asked + 1
    assert report.counts["calls"] == asked + 1  # over both sessions
    assert json.loads(output.read_text().splitlines()[-1])["id"] == "new"


def test_files_of_others_are_left_alone(collection, tmp_path, monkeypatch):
    made = Translate(PromptedTranslator(Saying(lambda _: "Кот")), "rus")
    source = load_collection(collection)
    with pytest.raises(InputError, match="is there already, and nothing says what made it"):
        translate_collection(source, collection / "docs.jsonl", made)
    assert len((collection / "docs.jsonl").read_text().splitlines()) == 42
    for path, complaint in (
        (tmp_path / "x.jsonl.gz", "without .gz"),
        (tmp_path / "no" / "x.jsonl", "no directory"),
    ):
        with pytest.raises(InputError, match=complaint):
            translate_collection(source, path, made)
    with pytest.raises(InputError, match="documents have no fields"):
        translate_collection(source, tmp_path / "x.jsonl", made, fields="title")
    with pytest.raises(InputError, match="unknown kind of texts 'docs'"):
        translate_collection(source, tmp_path / "x.jsonl", made, what="docs")
    assert not list(tmp_path.glob("*x.jsonl*"))


def test_topics_become_flat_topics(crosslens, collection, checkpoints, tmp_path):
    output = tmp_path / "topics.jsonl"
    status, out, err = crosslens("translate", collection, "-o", output, "--to", "zho", "--what", "queries", "--with", f"translate@hf:{checkpoints('nllb')}", "--device", "cpu")  # fmt: skip
    assert status == 0, err
    assert out.startswith(f"{output}: 1 queries (1 new, 1 translated into zho)")
    (record,) = [json.loads(line) for line in output.read_text().splitlines()]
    assert set(record) == {"id", "text", "lang", "source", "note"}
    assert (record["id"], record["lang"], record["source"]) == ("t1", "zho", "eng")
    # The file is also one of translations.
    done = Translated(output)(load_collection(collection).queries())
    assert done.queries[0].text == record["text"].strip()


def test_pictures_and_what_is_odd_are_kept_or_counted(tmp_path):
    from PIL import Image

    where = tmp_path / "collection"
    where.mkdir()
    Image.new("RGB", (8, 8)).save(where / "a.png")
    lines(
        where / "docs.jsonl",
        [
            {"id": "a", "text": "cat", "image": "a.png", "lang": "eng", "source": "web"},
            {"id": "b", "image": "a.png"},
            {"id": "c", "title": "The cat", "lang": "eng"},
        ],
    )
    made = Translate(PromptedTranslator(Saying(lambda _: "Кот")), "rus")
    inside = translate_collection(load_collection(where), where / "russian.jsonl", made)
    records = [json.loads(line) for line in inside.output.read_text().splitlines()]
    assert records == [
        {"id": "a", "text": "Кот", "image": "a.png", "lang": "rus", "source": "eng"},
        {"id": "b", "image": "a.png"},
        {"id": "c", "text": "Кот", "lang": "rus", "source": "eng"},
    ]
    assert inside.counts["source_replaced"] == 1
    (tmp_path / "other").mkdir()
    outside = translate_collection(load_collection(where), tmp_path / "other" / "russian.jsonl", made)
    assert [json.loads(line)["id"] for line in outside.output.read_text().splitlines()] == ["a", "c"]
    assert outside.counts["without_picture"] == outside.counts["left_out"] == 1
    assert any("lost their picture" in note for note in outside.notes)


def test_windows_hold_about_what_the_translator_likes():
    from crosslens.items import SeenIds
    from crosslens.multilingual.rewriting.translation_files import WINDOW, _windows

    items = [Item(str(n), "x" * 100) for n in range(1000)]
    sizes = [len(window) for window in _windows(items, SeenIds(), 1000)]
    assert sizes == [10] * 100
    assert max(len(window) for window in _windows(items, SeenIds(), 1 << 20)) == WINDOW
    assert sum(len(window) for window in _windows([*items, *items], SeenIds(), math.inf)) == 1000


def test_contracts_import_no_framework():
    script = (
        "import sys, crosslens.multilingual.rewriting.translation, crosslens.multilingual.rewriting.translation_files\n"
        "assert not {'torch', 'transformers', 'lancedb'} & {name.partition('.')[0] for name in sys.modules}"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert translation.EXAMPLE.startswith("translate@")
