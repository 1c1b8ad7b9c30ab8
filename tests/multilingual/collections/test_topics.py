"""collections/topics.py: which wording of a NeuCLIR or HC4 topic becomes the query; flat topics and their languages."""

from __future__ import annotations

import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from stand_ins.table import table

NEUCLIR_TOPIC = {
    "topic_id": "101",
    "languages_with_qrels": ["fas", "zho"],
    "topics": [
        {"lang": "eng", "source": "original", "topic_title": "Et", "topic_description": "Ed",
         "topic_narrative": "En"},
        {"lang": "fas", "source": "google-translation-1", "topic_title": "Fm", "topic_description": "Fmd",
         "topic_narrative": "Fmn"},
        {"lang": "fas", "source": "human translation", "topic_title": "Fh", "topic_description": "Fhd"},
        {"lang": "zho", "source": "20220114-scale21-tm1", "topic_title": "Zm", "topic_description": "Zmd"},
    ],
}  # fmt: skip
HC4_TOPIC = {
    "topic_id": "3",
    "languages_with_qrels": ["zho", "rus"],
    "topics": [{"lang": "eng", "source": "original", "topic_title": "T", "topic_description": "D"}],
    "narratives": {
        "zho": {"very_valuable": "VZ", "somewhat_valuable": "N/A", "not_that_valuable": "no", "non_relevant": "no"},
        "rus": {"very_valuable": "VR", "somewhat_valuable": "SR", "not_that_valuable": "no", "non_relevant": "no"},
    },
    "report": {"url": "u", "text": "r", "date": "2019-01-06"},
}


def ids(items) -> list[str]:
    return [item.id for item in items]


def query(make, topic: dict, **options) -> Item:
    (found,) = make(topics=[topic]).queries(**options)
    return found


def test_neuclir_topics(make):
    found = query(make, NEUCLIR_TOPIC)
    assert (found.id, found.text, found.lang) == ("101", "Et\nEd", "eng")
    assert found.meta == {"source": "original", "languages_with_qrels": ["fas", "zho"]}
    assert query(make, NEUCLIR_TOPIC, fields="title").text == "Et"
    assert query(make, NEUCLIR_TOPIC, fields="narrative + title").text == "En\nEt"
    assert query(make, NEUCLIR_TOPIC, lang="fa").text == "Fh\nFhd"  # a human's before a machine's
    machine = query(make, NEUCLIR_TOPIC, lang="fas", source="machine")
    assert (machine.text, machine.lang, machine.meta["source"]) == ("Fm\nFmd", "fas", "machine")
    assert query(make, NEUCLIR_TOPIC, lang="Chinese").text == "Zm\nZmd"
    assert query(make, NEUCLIR_TOPIC, source="human").lang == "fas"


def test_hc4_topics_have_their_narratives_apart(make):
    assert query(make, HC4_TOPIC).text == "T\nD"
    assert query(make, HC4_TOPIC, fields="title+narrative").text == "T\nVZ\nVR\nSR"
    hc3 = HC4_TOPIC | {"narratives": {"fas": {"very_valuable": "VF", "somewhat_valuable": "NA"}}}
    assert query(make, hc3, fields="narrative").text == "VF"
    plain = HC4_TOPIC | {"narratives": {"eng": "En", "rus": "Ru"}}
    assert query(make, plain, fields="narrative").text == "En"


@table(
    ("topic", "options", "told"),
    [
        (NEUCLIR_TOPIC, {"fields": "narrative", "lang": "zho"}, "topic '101' has no narrative"),
        (HC4_TOPIC | {"narratives": {}}, {"fields": "narrative"}, "topic '3' has no narrative"),
        (NEUCLIR_TOPIC, {"fields": "titel"}, "unknown topic field 'titel'; did you mean title?"),
        (NEUCLIR_TOPIC, {"fields": "title+"}, "unknown topic field ''"),
        (NEUCLIR_TOPIC, {"lang": "zho", "source": "human"}, "'101' has no wording in zho human (it has eng original"),
        (NEUCLIR_TOPIC, {"source": "machine"}, "several machine wordings: say which language (fas, zho)"),
        (NEUCLIR_TOPIC, {"lang": "rus"}, "no topics in rus"),
        (NEUCLIR_TOPIC, {"lang": "Elvish"}, "unknown language 'Elvish'"),
        (NEUCLIR_TOPIC, {"source": "orginal"}, "did you mean original?"),
        (NEUCLIR_TOPIC | {"topics": []}, {}, "'101' has no wording in original (it has none)"),
        (NEUCLIR_TOPIC | {"topics": "x"}, {}, "`topics` must be a list"),
        (NEUCLIR_TOPIC | {"languages_with_qrels": [1]}, {}, "`languages_with_qrels` must be a list"),
        ({"topics": []}, {}, "no topic_id"),
        ({"id": "1", "text": "x"}, {"fields": "title"}, "topic '1' has no title"),
        ({"id": "1", "text": "x"}, {"source": "human"}, "topic '1' has no human translation"),
        ({"id": "1", "text": ""}, {}, "topic '1' has neither text nor image"),
        ({"id": "1", "image": "../x.jpg"}, {}, "lies outside the collection"),
    ],
)
def test_what_a_topic_lacks_is_named(make, topic, options, told):
    with pytest.raises(InputError) as error:
        make(topics=[topic]).queries(**options)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_flat_topics_and_their_languages(make, tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    topics = [
        {"id": "1", "text": "old bridge repair", "lang": "en", "kind": "text to text"},
        {"id": "2", "image": "a.png"},
        {"id": "3", "text": "Forscher fanden Wasser auf dem Mond", "title": "Mond"},
        {"id": "4", "text": "тёплое море", "image": "a.png", "lang": "rus"},
    ]
    collection = make(topics=topics)
    assert ids(collection.queries()) == ["1", "2", "3", "4"]
    assert collection.queries()[0].meta == {"kind": "text to text"}
    assert ids(collection.queries(lang="english")) == ["1"]
    assert ids(collection.queries(lang="de")) == ["3"]  # it says nothing of its language, but is German
    make(topics=[topics[0], topics[0]])
    with pytest.raises(InputError, match=r"topics\.jsonl:2: the id '1' occurs a second time"):
        collection.queries()


def test_languages_that_topics_have_are_named(make):
    collection = make(topics=[{"id": "1", "text": "x", "lang": "eng"}, {"id": "2", "text": "y", "lang": "de"}])
    with pytest.raises(InputError, match="no topics in rus, only in deu, eng"):
        collection.queries(lang="ru")
