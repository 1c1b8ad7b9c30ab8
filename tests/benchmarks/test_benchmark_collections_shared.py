"""What the makers of collections share: locales, halves and samples, equal pictures, and how they end."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from crosslens.errors import InputError
from stand_ins.collection_scripts import SCRIPTS, cards, directory, locales, pictures, png, sample
from stand_ins.table import table


@table(
    ("langs", "found"),
    [
        ("zho,pt", {"por": "pt", "zho": "zh_CN"}),
        ("zh-TW, pt_br", {"por": "pt_BR", "zho": "zh_TW"}),
        ("sr@latin", {"srp": "sr@latin"}),
        ("Serbian,eng", {"eng": "en", "srp": "sr"}),
        ("all", {"eng": "en", "por": "pt", "srp": "sr", "zho": "zh_CN"}),
    ],
)
def test_a_language_has_its_usual_locale(langs: str, found: dict[str, str]):
    sizes = {"en": 9, "en_AU": 9, "pt": 5, "pt_BR": 9, "sr": 8, "sr@latin": 9, "xx": 9}
    sizes |= {"zh": 1, "zh_CN": 9, "zh_TW": 9}
    assert locales.chosen(langs, sizes, "There are no texts") == found


def test_a_locale_with_twice_the_texts_is_preferred():
    assert locales.chosen("por", {"pt": 5, "pt_BR": 11}, "") == {"por": "pt_BR"}


@table(
    ("langs", "complaint"),
    [
        ("rus,fas", r"There are no texts in Persian \(it has rus, zho\)"),
        ("zh-tw,zho", "zh_TW and zh_CN are both zho"),
        ("qqqq", "unknown language"),
        (" , ", "no languages"),
        ("rus,@", "unknown language ''"),
    ],
)
def test_languages_that_cannot_be_had(langs: str, complaint: str):
    with pytest.raises(InputError, match=complaint):
        locales.chosen(langs, {"ru": 1, "zh_CN": 1, "zh_TW": 1}, "There are no texts")


def test_what_belongs_together_shares_a_half():
    assert pictures.together({"d": ["x"], "a": ["y"], "b": ["x", "y"], "c": ["z"]}) == {
        "a": "a",
        "b": "a",
        "c": "c",
        "d": "a",
    }
    topics = [directory.Topic({"id": f"{lang}/{n}"}, [], split_by=str(n)) for n in range(60) for lang in "abc"]
    halves = {n: {topic.half for topic in topics if topic.split_by == str(n)} for n in range(60)}
    assert all(len(half) == 1 for half in halves.values())
    assert set().union(*halves.values()) == {"dev", "test"}
    assert directory.Topic({"id": "7"}, []).half == directory.half_of("7")


def test_a_sample_has_topics_of_every_language():
    judgement = directory.Judgement
    many = [
        directory.Topic(
            {"id": f"t{n}", "lang": "eng"},
            [judgement(f"dan/{n}", "dan", 3)] + ([judgement(f"zho/{n}", "zho", 3)] if n % 20 == 0 else []),
        )
        for n in range(400)
    ]
    small, large = (cards.sampled_by_language(many, most) for most in (4, 10))
    assert {topic.id for topic in small} < {topic.id for topic in large}
    for half in ("dev", "test"):
        of_half = [topic for topic in small if topic.half == half]
        held = Counter(lang for topic in of_half for lang in cards.langs_of(topic))
        assert held["zho"] == 4
        assert 4 <= held["dan"] <= 8
    assert cards.sampled_by_language(many, None) == sorted(many, key=lambda topic: topic.id)
    counts = cards.counted(small)
    assert counts["all"]["topics"] == len(small) == counts["dev"]["topics"] + counts["test"]["topics"]
    assert counts["all"]["by language"]["zho"] == {"topics": 8, "judgements": 8}
    picture = directory.Topic({"id": "p", "lang": "fra"}, [judgement("x", cards.NO_LANGUAGE, 3)] * 2)
    assert cards.counted([picture])["all"]["by language"] == {"fra": {"topics": 1, "judgements": 2}}


def test_pictures_are_the_same_by_their_pixels_not_their_bytes():
    assert png(1, compress=0) != png(1, alpha=False)
    assert pictures.pixels(png(1, compress=0), "a") == pictures.pixels(png(1, alpha=False), "b")
    assert pictures.pixels(png(1), "a") != pictures.pixels(png(2), "b")


@pytest.mark.parametrize("script", ["tuxpaint_stamps", "emoji", "debian_descriptions"])
def test_bad_arguments_end_with_one_line_and_status_2(script: str, tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for rest, complaint in (["--topics", "0"], "--topics must be at least 1"), ([], "full is there already"):
        command = [sys.executable, str(SCRIPTS / f"{script}.py"), str(tmp_path / "full"), *rest]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert complaint in done.stderr.splitlines()[-1]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]


def test_a_sample_has_what_is_relevant_and_so_many_others(tmp_path: Path) -> None:
    docs = [{"id": f"d{n}", "text": f"text {n}"} for n in range(50)]
    for half, grades in {"dev": "t rus d7 3\nt rus d8 0\n", "test": "u rus d9 1\n"}.items():
        (tmp_path / "whole" / half).mkdir(parents=True)
        (tmp_path / "whole" / half / "qrels.txt").write_text(grades)
        (tmp_path / "whole" / half / "topics.jsonl").write_text("{}\n")
    with gzip.open(tmp_path / "whole/docs.jsonl.gz", "wt") as out:
        out.writelines(json.dumps(doc) + "\n" for doc in docs)
    assert sample.draw_sample(tmp_path / "whole", tmp_path / "part", 10) == {"documents": 12, "of": 50}
    taken = [json.loads(line) for line in (tmp_path / "part/test/docs.jsonl").read_text().splitlines()]
    assert taken == [doc for doc in docs if doc in taken]
    assert {"d7", "d9"} < {doc["id"] for doc in taken}
    assert (tmp_path / "part/dev/qrels.txt").read_text() == (tmp_path / "whole/dev/qrels.txt").read_text()
    with pytest.raises(InputError, match="is there already"):
        sample.draw_sample(tmp_path / "whole", tmp_path / "part", 10)
    with pytest.raises(InputError, match="dev/topics.jsonl is not there: give a collection with halves"):
        sample.draw_sample(tmp_path / "part/dev", tmp_path / "other", 10)
