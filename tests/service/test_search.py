"""Searches over HTTP: what is found, in every form of asking, and what is refused."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
from crosslens.items import Item
from crosslens.service.application import Access
from crosslens.service.engine import Engine
from crosslens.service.quotas import Unknown
from stand_ins.index_cases import png
from stand_ins.live import JUDGE, Live
from stand_ins.patient import Patient
from stand_ins.table import table


def ids(answer: dict) -> list[str]:
    return [hit["id"] for hit in answer["hits"]]


def test_a_search_finds_what_the_index_finds(live: Live) -> None:
    index = live.engine.indexes["small"].index
    for mode in ("dense", "lexical", "hybrid"):
        found = live.search(text="boat number 6", mode=mode, rerank=False, k=7)
        expected = index.search([Item("q", "boat number 6", lang=found["query"]["lang"])], 100, mode=mode)["q"]
        assert ids(found) == [hit.id for hit in expected[:7]]
        assert [hit["score"] for hit in found["hits"]] == pytest.approx([hit.score for hit in expected[:7]], abs=1e-5)
        assert found["total"] == len(expected)
    assert found["edition"] == index.fingerprint


def test_all_ways_to_ask_are_one(live: Live) -> None:
    picture = png(120)
    by_url = live.client.get("/search", params={"q": "door", "k": 3, "rerank": "false", "where": "lang=rus"}).json()
    by_body = live.search(text="door", k=3, rerank=False, where={"lang": ["rus"]})
    assert ids(by_url) == ids(by_body)
    assert {hit["lang"] for hit in by_body["hits"]} == {"rus"}
    encoded = base64.b64encode(picture).decode()
    as_text = live.search(image=encoded, rerank=False)
    as_url = live.search(image=f"data:image/png;base64,{encoded}", rerank=False)
    form = {"query": json.dumps({"rerank": False})}
    as_file = live.client.post("/search", data=form, files={"image": ("p.png", picture, "image/png")}).json()
    assert ids(as_text) == ids(as_url) == ids(as_file)
    assert ids(as_text)[0] == "p3"


def test_pages_are_cut_from_one_ranking(live: Live) -> None:
    whole = ids(live.search(text="cloud", k=30))
    pages = [ids(live.search(text="cloud", k=10, offset=offset)) for offset in (0, 10, 20)]
    assert [id for page in pages for id in page] == whole
    ranks = [hit["rank"] for hit in live.search(text="cloud", k=10, offset=10)["hits"]]
    assert ranks == list(range(11, 21))


def test_more_like_a_document_are_others(live: Live) -> None:
    found = live.search(id="t/5", k=5)
    assert found["query"]["id"] == "t/5"
    assert found["hits"]
    assert "t/5" not in ids(found)
    assert all("apple" in hit["snippet"] for hit in found["hits"][:3])
    assert live.search(404, id="nowhere")["error"]["type"] == "not_found_error"


def test_explained_scores_say_which_stage_moved_it(live: Live) -> None:
    found = live.search(text="elephant number 9", explain=True, k=5)
    assert found["reranked"]
    for hit in found["hits"]:
        stages = hit["stages"]
        assert [stage["stage"].split("(")[0].strip() for stage in stages] == ["dense", "lexical", "hybrid", "rerank"]
        assert stages[-1]["rank"] == hit["rank"]
    assert [record["stage"].split("(")[0] for record in found["manifest"]] == ["hybrid", "rerank"]
    pictured = live.search(image=base64.b64encode(png(120)).decode(), explain=True, k=1)["hits"][0]
    assert [each["stage"] for each in pictured["stages"]][:2] == ["dense", "hybrid"]


def test_facets_count_the_first_hundred(live: Live) -> None:
    found = live.search(text="apple", k=1, facets=True, rerank=False)
    langs = {each["value"]: each["count"] for each in found["facets"]["lang"]}
    assert langs == {"eng": 13, "rus": 10, "ara": 10} or sum(langs.values()) <= found["total"]
    assert {each["value"] for each in found["facets"]["modality"]} <= {"text", "image", "text+image"}
    assert next(each for each in found["facets"]["lang"] if each["value"] == "ara")["name"] == "Arabic"


def test_a_hit_says_how_it_is_written_and_where_its_words_are(live: Live) -> None:
    hit = next(hit for hit in live.search(text="boat", rerank=False, k=30)["hits"] if hit["lang"] == "ara")
    assert (hit["direction"], hit["language"]) == ("rtl", "Arabic")
    start, end = hit["highlights"][0]
    assert hit["snippet"][start:end] == "boat"


def test_what_is_asked_again_is_not_computed_again(live: Live) -> None:
    first = live.search(text="a question of its own", lang="eng")
    asked = Patient.asked
    again = live.search(text="a question of its own", lang="eng", k=5)
    assert (first["cached"], again["cached"], Patient.asked) == (False, True, asked)
    assert ids(again) == ids(first)[:5]


@table(
    ("asked", "status", "said"),
    [
        ({}, 400, "the query is empty"),
        ({"text": "  "}, 400, "the query is empty"),
        ({"text": "a", "k": 0}, 400, "k: "),
        ({"text": "a", "k": 600, "offset": 600}, 400, "1000 is the most"),
        ({"text": "a", "colour": "red"}, 400, "no field 'colour'"),
        ({"text": "a", "mode": "magic"}, 400, "mode must be one of"),
        ({"text": "a", "mode": "dense", "system": "plain"}, 400, "a system or a mode"),
        ({"text": "a", "system": "nope"}, 404, "no system 'nope'"),
        ({"text": "a", "system": "plain", "rerank": True}, 400, "has no reranker"),
        ({"text": "a", "index": "nope"}, 404, "no index 'nope'"),
        ({"text": "a", "lang": "no language at all"}, 400, "no language"),
        ({"text": "a", "where": {"colour": "red"}}, 400, "colour"),
        ({"text": "a", "timeout_ms": 0}, 400, "timeout_ms"),
        ({"image": "http://example.org/x.png"}, 400, "not fetched"),
        ({"image": "%%%"}, 400, "not base64"),
        ({"image": base64.b64encode(b"GIF89a broken").decode()}, 400, "picture"),
        ({"text": "word " * 3000}, 413, "512 are the most"),
        ({"text": "\ud800"}, 400, ""),
    ],
)
def test_what_cannot_be_searched_for_is_one_line(live: Live, asked: dict, status: int, said: str) -> None:
    answer = live.client.post("/search", content=json.dumps(asked), headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert answer.status_code == status, error
    assert said in error["message"]
    assert "\n" not in error["message"]
    assert "/tmp" not in error["message"]


def test_one_wrong_query_spoils_no_other(live: Live) -> None:
    """They are searched for together: a picture that cannot be opened is refused alone."""
    wrong = base64.b64encode(b"\x89PNG\r\n\x1a\n broken").decode()
    answers: dict[int, int] = {}

    def ask(number: int) -> None:
        body = {"image": wrong} if number % 4 == 0 else {"text": f"alone {number}"}
        answers[number] = live.client.post("/search", json={**body, "rerank": False}).status_code

    threads = [threading.Thread(target=ask, args=[number]) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: 400 if number % 4 == 0 else 200 for number in range(24)}


def test_a_late_reranking_leaves_the_first_ranking(live: Live) -> None:
    plain = ids(live.search(text="late cloud", rerank=False))
    Patient.held.set()
    try:
        started = time.monotonic()
        found = live.search(text="late cloud", timeout_ms=400)
        assert (found["partial"], found["reranked"], ids(found)) == (True, False, plain)
        assert time.monotonic() - started < 5
        # and what hangs holds up no search
        assert live.search(text="quick cloud", rerank=False)["hits"]
    finally:
        Patient.held.clear()
    assert live.search(text="late cloud")["reranked"]


def test_a_judge_that_cannot_tell_leaves_the_first_ranking(serve: Callable[..., Live]) -> None:
    """It must not give one score to all, which is no fault of who asked."""
    live = serve(Access(token="w"), (f"hybrid >> {JUDGE}",))
    new = [{"id": word, "text": f"cat {word}", "meta": {"n": 99}} for word in ("one", "two", "six")]
    token = {"x-write-token": "w"}
    assert live.client.post("/documents", json={"documents": new}, headers=token).status_code == 200
    found = live.search(text="cat", where={"n": 99})
    assert (found["reranked"], found["partial"], sorted(ids(found))) == (False, True, ["one", "six", "two"])


def test_a_request_that_is_hung_up_costs_no_more(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    before = Patient.asked
    Patient.held.set()
    try:
        with pytest.raises(Exception, match="timed out"):
            live.client.post("/search", json={"text": "gone away"}, timeout=0.4)
    finally:
        time.sleep(0.3)
        Patient.held.clear()
    time.sleep(0.3)
    assert Patient.asked - before <= 20  # of what was under way no more than it had been given
    assert live.search(text="still here")["reranked"]
    assert "error" not in caplog.text  # of the service


def test_a_filter_by_true_is_none_by_one(live: Live) -> None:
    assert ids(live.search(text="boat", rerank=False, where={"n": 1})) == ["t/1"]
    assert ids(live.search(text="boat", rerank=False, where={"n": True})) == []
    assert ids(live.search(text="boat", rerank=False, where={"n": [True, 1]})) == ["t/1"]
    assert "1,001 values" in live.search(400, text="boat", where={"n": list(range(1001))})["error"]["message"]


def test_a_form_with_half_a_surrogate_pair_is_refused(live: Live) -> None:
    form = {"query": '{"text": "\\ud800"}'}
    answer = live.client.post("/search", data=form, files={"image": ("p.png", png(1), "image/png")})
    assert answer.status_code == 400
    assert "the field query of the form" in answer.json()["error"]["message"]


def test_pictures_of_queries_do_not_fill_the_memory(live: Live) -> None:
    """Rankings are kept with their queries, and these go as soon as they are many bytes."""

    def ask(number: int) -> bool:
        file = {"image": ("p.png", png(number) + bytes([number]) * (5 << 20), "image/png")}
        answer = live.client.post("/search", data={"query": '{"rerank": false}'}, files=file)
        kept: bool = answer.json()["cached"]
        return kept

    assert not any(ask(number) for number in range(9))
    assert ask(8)
    assert not ask(0)


def test_a_reranker_whose_name_is_its_spec_is_named_once() -> None:
    served = SimpleNamespace(rerankers={"default": SimpleNamespace(second=SimpleNamespace(line="default"))})
    with pytest.raises(Unknown, match=r"'nope' here, only default$"):
        Engine.choose_reranker(cast("Engine", served), "nope")


def test_kept_rankings_hold_no_edition_in_memory(live: Live) -> None:
    """Views have the vectors of their edition, which would stay when the index has long gone on."""
    live.search(text="kept and reranked")
    index = live.engine.indexes["small"].index
    kept = [found for found, _ in live.engine.searching._rankings._held.values()]  # noqa: SLF001
    assert len(kept) >= 2
    assert all(found.docs is index for found in kept)
