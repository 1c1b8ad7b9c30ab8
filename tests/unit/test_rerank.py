"""Judges against a plain loop over the model; the Rerank stage against a judge that knows the answer."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual import prompts, rerank
from crosslens.multilingual.judges import HFJudge
from crosslens.multilingual.prompts import Passage, Prompt
from crosslens.multilingual.rerank import Rerank
from crosslens.multilingual.sorters import SORTERS
from crosslens.runs import Hit, Run
from hypothesis import given, settings
from hypothesis import strategies as st

DOCS = {
    "cat": Item("cat", "The cat sleeps all day and hunts at night. " * 3, lang="eng"),
    "chat": Item("chat", "Le chat dort toute la journée.", lang="fra"),
    "mao": Item("mao", "猫整天睡觉，晚上捕猎。", lang="zho"),
    "gorbe": Item("gorbe", "گربه تمام روز می‌خوابد.", lang="fas"),
    "photo": Item("photo", image=b"a picture"),
}
QUERIES = (
    Item("q1", "how long do cats sleep", lang="eng"),
    Item("q2", "кошка ночью", lang="rus"),
    Item("q3", "x", lang="deu"),
)


class Held:
    def get(self, ids):
        return [DOCS[each] for each in ids]


def first_stage(queries=QUERIES, ids=tuple(DOCS)):
    hits = {
        query.id: tuple(Hit(each, 1.0 - 0.1 * rank) for rank, each in enumerate(ids)) for query in queries
    }
    return Run(tuple(queries), hits, docs=Held())


@pytest.fixture(scope="module")
def judge(tiny_judge):
    return HFJudge.from_checkpoint(str(tiny_judge), device="cpu", dtype="float32")


@torch.inference_mode()
def plain(judge, prompt: str, target: str) -> list[float]:
    """Log-probabilities of the target's tokens, one prompt a forward pass, full logits."""
    start = [judge.tokenizer.bos_token_id, *judge.tokenizer(prompt)["input_ids"]]
    said = judge.tokenizer(target)["input_ids"]
    logits = judge.model(torch.tensor([start + said])).logits[0].log_softmax(-1)
    return [float(logits[len(start) - 1 + i, token]) for i, token in enumerate(said)]


def test_likelihood_is_that_of_a_plain_loop_whatever_is_shared_and_batched(judge):
    prompt = prompts.load("likelihood")
    pairs = [(query, doc) for query in QUERIES for doc in DOCS.values() if doc.text]
    messages = [prompt.word(prompt.template, *pair) for pair in pairs]
    targets = [f" {query.text}" for query, _ in pairs]
    expected = []
    for message, target in zip(messages, targets, strict=True):
        text = "".join(part.text if isinstance(part, Passage) else part for part in message)
        expected.append(np.mean(plain(judge, text, target)))
    np.testing.assert_allclose(judge.likelihood(messages, targets), expected, rtol=1e-4)
    whole = judge.budget
    judge.budget = 40  # many batches, many copies of the cache
    np.testing.assert_allclose(judge.likelihood(messages, targets), expected, rtol=1e-4)
    judge.budget = whole


@pytest.mark.parametrize("labels", [(" Yes", " No"), (" Yes, very much", " No")])
def test_choose_is_that_of_a_plain_loop_for_labels_of_one_and_many_tokens(judge, labels):
    messages = [(Passage(doc.text), "\nIs it? Answer:") for doc in DOCS.values() if doc.text]
    expected = [[sum(plain(judge, m[0].text + m[1], label)) for label in labels] for m in messages]
    np.testing.assert_allclose(judge.choose(messages, labels), expected, rtol=1e-4)


def test_a_shared_passage_is_computed_once(judge):
    passage = Passage(DOCS["cat"].text)
    alone, together = Counter(judge.usage), None
    judge.likelihood([(passage, " question one:")], [" yes"])
    alone = judge.usage - alone
    before = Counter(judge.usage)
    judge.likelihood([(passage, f" question {n}:") for n in ("one", "two", "three", "four")], [" yes"] * 4)
    together = judge.usage - before
    assert together["calls"] == 4
    assert together["prompt_tokens"] < 2 * alone["prompt_tokens"]


def test_a_long_passage_is_cut_and_the_query_is_not(judge):
    judge_ = HFJudge(judge.model, judge.tokenizer, "tiny", "0", passage_tokens=5, device=judge.device)
    text = judge_._text((Passage("The cat sleeps all day and hunts at night."), " the query"))
    assert text.endswith(" the query")
    assert len(judge.tokenizer(text.removesuffix(" the query"))["input_ids"]) == 5
    with pytest.raises(InputError, match="exceeds the context"):
        judge.likelihood([("cat " * 600,)], [" yes"])


def test_generate_continues_every_prompt_as_it_does_alone(judge):
    messages = [("The cat",), ("Le chat dort toute la journée et",), ("x",)]
    together = judge.generate(messages, max_new_tokens=5)
    alone = [judge.generate([message], max_new_tokens=5)[0] for message in messages]
    assert [each.text for each in together] == [each.text for each in alone]
    assert all(0 < each.tokens <= 5 for each in together)


class Oracle:
    """Knows how relevant each document is."""

    name, revision, fingerprint, modalities = "oracle", "1", "oracle", frozenset({"text"})

    def __init__(self, truth, blind=()):
        self.truth, self.usage = truth, Counter()

    def likelihood(self, prompts, targets):
        self.usage["calls"] += len(prompts)
        self.usage["rounds"] += 1
        return np.array([self.truth[next(p.text for p in m if isinstance(p, Passage))] for m in prompts])


PROMPT = Prompt("test", "likelihood", "{passage}", " {query}")
TRUTH = {
    doc.text.strip(): score for doc, score in zip(list(DOCS.values())[:4], (0.1, 0.9, 0.4, 0.6), strict=True)
}


def test_all_queries_are_judged_in_one_round_and_photos_keep_their_ranks():
    judge = Oracle(TRUTH)
    run = first_stage(ids=("cat", "photo", "chat", "mao", "gorbe"))
    done = Rerank(judge, PROMPT, unseen="keep")(run)
    for _, hits in done:
        assert [hit.id for hit in hits] == ["chat", "photo", "gorbe", "mao", "cat"]
        assert [round(hit.score, 6) for hit in hits] == [0.9, 0.9, 0.6, 0.4, 0.1]
        scores = [hit.score for hit in hits]
        assert scores == sorted(set(scores), reverse=True)
    assert judge.usage == {"calls": 12, "rounds": 1}
    assert done.manifest.total("unseen") == 3
    assert done.manifest.total("calls") == 12
    assert done.manifest.records[-1].models == {"oracle": "1"}


def test_candidates_below_depth_stay_below_in_their_order():
    done = Rerank(Oracle(TRUTH), PROMPT, depth=2, k=2)(first_stage(ids=("cat", "chat", "gorbe", "mao")))
    assert [hit.id for hit in done["q1"]] == ["chat", "cat", "gorbe", "mao"]


def test_photos_are_refused_before_any_work_unless_kept():
    judge = Oracle(TRUTH)
    with pytest.raises(InputError, match="reads text only and cannot judge 3 of the candidates"):
        Rerank(judge, PROMPT)(first_stage())
    assert not judge.usage
    photo_query = (Item("q", image=b"a picture"),)
    done = Rerank(judge, PROMPT, unseen="keep")(first_stage(photo_query))
    assert done["q"] == first_stage(photo_query)["q"]
    assert not judge.usage


@given(alpha=st.floats(0, 1), order=st.permutations(["cat", "chat", "mao", "gorbe", "photo"]))
@settings(max_examples=50, deadline=None)
def test_fusion_is_the_weighted_sum_of_z_scores_and_a_permutation(alpha, order):
    run = first_stage(QUERIES[:1], tuple(order))
    done = Rerank(Oracle(TRUTH), PROMPT, alpha=alpha, unseen="keep")(run)
    assert sorted(hit.id for hit in done["q1"]) == sorted(order)
    seen = [each for each in order if each != "photo"]
    first = np.array([1.0 - 0.1 * order.index(each) for each in seen])
    said = np.array([TRUTH[DOCS[each].text.strip()] for each in seen])
    z = alpha * (said - said.mean()) / said.std() + (1 - alpha) * (first - first.mean()) / first.std()
    if len(set(z.round(9))) == len(z):
        expected = [seen[i] for i in np.argsort(-z)]
        assert [hit.id for hit in done["q1"] if hit.id != "photo"] == expected


def test_a_judge_that_says_nan_or_always_the_same_is_an_error():
    with pytest.raises(InputError, match=r"not finite for query 'q1' and document 'cat'"):
        Rerank(Oracle(TRUTH | {DOCS["cat"].text.strip(): np.nan}), PROMPT, unseen="keep")(first_stage())
    with pytest.raises(InputError, match="the score 0.5: it does not follow the prompt test"):
        Rerank(Oracle(dict.fromkeys(TRUTH, 0.5)), PROMPT, unseen="keep")(first_stage())


@pytest.mark.parametrize("name", prompts.known())
def test_every_built_in_prompt_words_query_and_passage_and_scores_with_a_real_model(judge, name):
    prompt = prompts.load(name)
    assert prompt.paper
    scores = prompt.score(judge, [(QUERIES[0], [DOCS["cat"], DOCS["chat"]]), (QUERIES[1], [DOCS["mao"]])])
    assert [len(each) for each in scores] == [2, 1]
    assert np.isfinite(np.concatenate(scores)).all()
    words = prompt.template + prompt.target
    assert "{query}" in words
    assert "{passage}" in words


@pytest.mark.parametrize("sort", SORTERS.values(), ids=list(SORTERS))
@pytest.mark.parametrize("n", [0, 1, 2, 17, 100])
def test_every_sorter_finds_the_true_order_with_a_perfect_judge(sort, n):
    truth = {f"d{i}": float((i * 37) % 101) for i in range(n)}
    generator = sort([Hit(doc, 0.0) for doc in truth], 10)
    answer = None
    while True:
        try:
            ask = generator.send(answer)
        except StopIteration as stop:
            best = [hit.id for hit in stop.value]
            break
        answer = [np.array([truth[hit.id] for hit in group]) for group in ask.groups]
    assert sorted(best) == sorted(truth)
    assert best[:10] == sorted(truth, key=truth.__getitem__, reverse=True)[:10]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("likelihood", "names no model"),
        ("likelyhood@offline:gemma", "unknown prompt 'likelyhood'; did you mean likelihood"),
        ("likelihood:heap@offline:gemma", "unknown sorter 'heap'"),
        ("likelihood@offlin:gemma", "unknown judge family 'offlin'; did you mean offline"),
        ("likelihood@offline:gema", "unknown offline judge 'gema'; did you mean gemma"),
        ("likelihood@offline:gemma?detph=3", "'detph'; did you mean depth"),
        ("likelihood@offline:gemma?depth=many", "is not a number of type int"),
    ],
)
def test_wrong_specs_are_one_clear_line(spec, message):
    with pytest.raises(InputError, match=message):
        rerank.load(spec)


def test_a_spec_becomes_the_stage_it_describes(tiny_judge):
    stage = rerank.load(
        f"yesno@hf:{tiny_judge}?depth=7&alpha=0.25&passage_tokens=9&dtype=float32", device="cpu"
    )
    assert (stage.prompt.name, stage.depth, stage.k, stage.alpha) == ("yesno", 7, 7, 0.25)
    assert stage.judge.passage_tokens == 9
    again = rerank.load(
        f"yesno@hf:{tiny_judge}?depth=7&alpha=0.25&passage_tokens=9&dtype=float32", device="cpu"
    )
    assert stage.fingerprint == again.fingerprint
    assert (
        stage.fingerprint
        != rerank.load(f"yesno@hf:{tiny_judge}?depth=8&dtype=float32", device="cpu").fingerprint
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('asks = "likelihood"\ntemplate = "{passage}"', "lacks the placeholder {query}"),
        ('asks = "likelihood"\ntemplate = "{passage} {qery}"', "unknown placeholder"),
        ('asks = "likelihood"\ntemplate = "{passage} {query}"', "has no target"),
        ('asks = "choose"\ntemplate = "{passage} {query}"\nlabels = [" A"]', "fewer than two labels"),
        ('asks = "guess"\ntemplate = "{passage} {query}"', "unknown `asks`"),
        ('template = "{passage} {query}"', "lacks asks"),
        ('asks = "choose"\ntemplate = "{passage} {query}"\nlables = []', "did you mean labels"),
        ("asks", "is not TOML"),
    ],
)
def test_a_faulty_prompt_file_is_one_clear_line(text, message):
    with pytest.raises(InputError, match=message):
        prompts.parse(text, "mine")


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"depth": 5}, "depth 5 is below k 10"),
        ({"k": 0}, "at least 1"),
        ({"alpha": 1.5}, "alpha must be in 0..1"),
    ],
)
def test_settings_that_make_no_sense(settings_, message):
    with pytest.raises(InputError, match=message):
        Rerank(Oracle({}), PROMPT, **settings_)
