"""The SPEC of a translation, and the stage that reads translations from a file."""

from __future__ import annotations

import gzip
import subprocess
import sys

import pytest
import transformers
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.rewriting import translation
from crosslens.multilingual.rewriting.translation import Translated, load_translation
from crosslens.runs import Hit, Run
from stand_ins.table import table
from tiny.translators import ENGLISH, lines, queries


@table(
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


def test_two_targets_are_refused(checkpoints):
    with pytest.raises(InputError, match="translates into rus, and zho was asked for"):
        load_translation(f"translate@hf:{checkpoints('nllb')}?to=rus", to="zh", device="cpu")


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
    with pytest.raises(InputError, match="translations into rus, zho: choose with"):
        Translated(path)
    with pytest.raises(InputError, match="no translations into fas, only into rus, zho"):
        Translated(path, "fas")


@table(
    ("name", "content", "complaint"),
    [
        ("t.jsonl", '{"id": "a", "text": "x", "lang": "eng"}\n{"id": "a"', r"t.jsonl:2: malformed JSON"),
        ("t.jsonl", '{"id": "a", "text": "x"}', "t.jsonl:1: the translation of 'a' has no language"),
        ("t.jsonl", '{"text": "x", "lang": "eng"}', "t.jsonl:1: no id"),
        ("t.jsonl", '{"id": "a", "text": " ", "lang": "eng"}', "t.jsonl:1: the translation of 'a' has no text"),
        ("t.jsonl", '{"id": "a", "text": "x", "lang": "xx"}', "t.jsonl:1: unknown language 'xx'"),
        ("t.jsonl", '{"id":"a","text":"x","lang":"en"}\n{"id":"a","text":"y","lang":"en"}', "t.jsonl:2: a second translation of 'a' into eng"),
        ("t.jsonl", "", "has no translations"),
        ("t.tsv", "a x\n", "t.tsv:1: not `id TAB text` but 1 columns: 'a x'"),
        ("t.tsv", "a\tx\n", "t.tsv:1: the translation of 'a' has no language"),
        ("t.jsonl.gz", "not gzip", "cannot read the translations"),
        ("t.jsonl.gz", gzip.compress(b"x" * 99, mtime=0)[:10] + b"\xff" * 30, "cannot read the translations"),
        (None, None, "cannot read the translations"),
    ],
)  # fmt: skip
def test_bad_files_are_one_line(tmp_path, name, content, complaint):
    path = tmp_path / (name or "none.jsonl")
    if name:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=complaint) as error:
        Translated(path)
    assert "\n" not in str(error.value)


def test_contracts_import_no_framework():
    script = (
        "import sys, crosslens.multilingual.rewriting.translation, crosslens.multilingual.rewriting.translation_files\n"
        "assert not {'torch', 'transformers', 'lancedb'} & {name.partition('.')[0] for name in sys.modules}"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert translation.EXAMPLE.startswith("translate@")
