"""Models that were trained to translate, as tiny checkpoints of every kind."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.judges.journal import Journal
from crosslens.multilingual.rewriting import translation_models
from crosslens.multilingual.rewriting.translation import load_translation
from crosslens.multilingual.rewriting.translation_models import TrainedTranslator, is_trained
from crosslens.runs import Hit, Run
from tiny.translators import ENGLISH, MARKS, marian, queries, stage


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


def test_the_model_is_given_both_languages_in_its_own_way(checkpoints, kind, monkeypatch):
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
    chinese = {"marian": ">>cmn_Hans<<", "m2m": "__zh__", "nllb": "zho_Hans", "mbart": "zh_CN", "madlad": "<2zh>"}
    marked = asked[0] if kind in ("marian", "madlad") else answer[1]
    assert tokenizer.convert_ids_to_tokens([marked]) == [chinese[kind]]
    assert other.translator is translator  # one model for several languages


@pytest.mark.parametrize(("kind", "beams"), [("marian", 3), ("nllb", 1), ("nllb", 3), ("mbart", 1), ("madlad", 2)])
def test_alone_is_as_in_a_batch_and_order_is_kept(checkpoints, kind, beams):
    translator = stage(checkpoints(kind), options=f"&beams={beams}").translator
    texts = [ENGLISH[1], "The cat. It hunts!\n at night", "cats", ENGLISH[1], "猫", "12345 ---"]
    chinese = "zho" if translator.sources is None or "zho" in translator.sources else "eng"
    sources = [*["eng"] * 4, chinese, "eng"]
    together = translator.translate(texts, sources, "rus")
    alone = [translator.translate([text], [source], "rus")[0] for text, source in zip(texts, sources, strict=True)]
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


def test_long_sentences_are_cut_and_counted_and_nothing_is_lost(checkpoints):
    translator = stage(checkpoints("m2m")).translator
    long = "so long, that the cat sleeps all the night; " * 30
    parts = translator.cut_sentence(long)
    assert "".join(parts) == long
    assert max(len(translator.tokenizer(part)["input_ids"]) for part in parts) <= 128
    assert all(part.rstrip().endswith((";", ",")) for part in parts)
    before = translator.usage["split_sentences"]
    (translated,) = translator.translate([long], ["eng"], "rus")
    assert translator.usage["split_sentences"] == before + 1
    assert translated != long


def test_answers_without_end_and_empty_ones_are_counted_and_the_text_kept(checkpoints, monkeypatch):
    where = checkpoints("marian")
    made = stage(where)
    end = made.translator.model.config.eos_token_id

    def generate(*, input_ids, max_new_tokens, **_):
        rows = [
            [0, end, *[end] * (max_new_tokens - 1)] if len(row) < 7 else [0, *[9] * max_new_tokens] for row in input_ids
        ]
        return torch.tensor(rows)

    monkeypatch.setattr(made.translator.model, "generate", generate)
    made.translator.budget = 1
    done = made(queries(["cats", "The cat sleeps all day and hunts at night."]))
    counts = done.manifest.records[0].counts
    assert counts["empty"] == counts["untranslated"] == counts["cut_answers"] == counts["translated"] == 1
    assert done.queries[0] == queries(["cats"])[0]  # text and language as they were
    assert done.queries[1].lang == "rus"


def test_out_of_memory_halves_the_batch(checkpoints):
    translator = stage(checkpoints("nllb")).translator
    expected = translator.translate(ENGLISH, ["eng"] * 5, "rus")
    sizes = []

    def scarce(module, inputs):
        sizes.append(len(inputs[0]))
        if len(inputs[0]) > 1:
            raise torch.OutOfMemoryError("out of memory")

    modules = [each for each in translator.model.modules() if isinstance(each, torch.nn.Embedding)]
    hooks = [module.register_forward_pre_hook(scarce) for module in modules]
    assert translator.translate(ENGLISH, ["eng"] * 5, "rus") == expected
    assert max(sizes) > 1
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize(("kind", "dies"), [("marian", 1), ("nllb", 4)])
def test_what_was_translated_before_a_kill_is_not_translated_again(checkpoints, kind, tmp_path, monkeypatch, dies):
    texts = [f"The cat sleeps. It hunts!\n{word} at night, {word}" for word in ("cats", "night", "sleeps")]
    long = "the cat sleeps " * 8  # one sentence, which is cut
    monkeypatch.setattr(translation_models, "LONGEST", 16)
    made = stage(checkpoints(kind), options="&beams=2").translator
    monkeypatch.setattr(made, "budget", 64)  # a piece or two at a time
    run = lambda translator: translator.translate([*texts, long], ["eng"] * 4, "rus")  # noqa: E731
    before = Counter(made.usage)
    expected = run(made)
    whole = made.usage - before
    assert whole["split_sentences"] == 1
    plain, calls = made.generator.write, [0]

    def write(*given, **options):
        calls[0] += 1
        if calls[0] > dies:
            raise KeyboardInterrupt
        return plain(*given, **options)

    journal = Journal(tmp_path / "journal")
    monkeypatch.setattr(made.generator, "write", write)
    with pytest.raises(KeyboardInterrupt):
        run(made.keep_in(journal))
    journal.close()
    journal = Journal(tmp_path / "journal")
    kept = len(journal)
    assert dies <= kept < whole["calls"]
    calls[0] = -(10**9)
    before = Counter(made.usage)
    assert run(made.keep_in(journal)) == expected
    again = made.usage - before
    assert again["calls"] == whole["calls"] - kept
    assert again + journal.take_counts() == whole
    # All of it is there now, for this language and these beams alone.
    before = Counter(made.usage)
    assert run(made.keep_in(journal)) == expected
    assert (made.usage - before)["calls"] == 0
    monkeypatch.setattr(made, "beams", 1)
    run(made.keep_in(journal))
    assert (made.usage - before)["calls"] == whole["calls"]


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


def test_unknown_languages_are_counted_where_they_must_be(checkpoints):
    made = stage(checkpoints("nllb"))
    odd = [Item("q", "Xq"), Item("p", image=b"..."), Item("r", "Кошка спит весь день.", lang="rus"), Item("s", " ")]
    done = made(odd)
    counts = done.manifest.records[0].counts
    assert done.queries == tuple(odd)
    assert counts["unknown_language"] == counts["untranslated"] == counts["already"] == 1
    assert counts["without_text"] == 2
    with pytest.raises(InputError, match=r"translates from .* only, and not q \(tlh\)"):
        made([Item("q", "Qapla'", lang="tlh")])


def test_codes_of_languages_are_read_off_the_vocabulary(checkpoints, tmp_path):
    nllb_codes = stage(checkpoints("nllb")).translator.codes
    wanted = {"zho": "zho_Hans", "fas": "pes_Arab", "ara": "arb_Arab", "aze": "azj_Latn", "aka": "aka_Latn", "nor": "nob_Latn",
              "swa": "swh_Latn", "kas": "kas_Arab", "msa": "zsm_Latn", "yue": "yue_Hant", "ary": "ary_Arab", "srp": "srp_Cyrl"}  # fmt: skip
    assert {code: nllb_codes[code] for code in wanted} == wanted
    assert len(nllb_codes) == 194
    m2m_codes = stage(checkpoints("m2m")).translator.codes
    assert (m2m_codes["zho"], m2m_codes["fas"], len(m2m_codes)) == ("zh", "fa", 99)
    mbart_codes = stage(checkpoints("mbart")).translator.codes
    assert (mbart_codes["zho"], mbart_codes["fas"], len(mbart_codes)) == ("zh_CN", "fa_IR", 52)
    assert stage(checkpoints("madlad")).translator.codes == {"eng": "en", "zho": "zh", "rus": "ru"}
    marks = (">>cmn_Hant<<", ">>zho<<", ">>cmn_Hans<<", ">>sr_Latn<<", ">>sr<<", ">>x<<", "rus", ">>qqq<<")
    several = marian(tmp_path, marks, target="mul")
    assert stage(several, "zho").translator.codes == {"zho": "cmn_Hans", "srp": "sr"}


def test_pickled_weights_and_a_missing_package_are_named(checkpoints, tmp_path, monkeypatch):
    for file in checkpoints("marian").iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled weights only .*AutoModelForSeq2SeqLM"):
        stage(tmp_path)

    def lacks(*_):
        raise InputError("MarianTokenizer requires the SentencePiece library. Check out the instructions on the")

    monkeypatch.setattr(translation_models.Source, "load_tokenizer", lacks)
    with pytest.raises(InputError, match="Check out"):  # it is installed here: something else is wrong
        stage(checkpoints("marian"))
    monkeypatch.setattr(translation_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs sentencepiece and protobuf"):
        stage(checkpoints("marian"))
