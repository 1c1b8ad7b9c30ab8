"""What a judge is shown of a document that it would cut: the window that the encoder likes best."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from crosslens.encoders.base import EncoderSpec, unit
from crosslens.errors import InputError
from crosslens.items import Dense, Item
from crosslens.multilingual.judges.messages import Passage
from crosslens.multilingual.prompts import Prompt
from crosslens.multilingual.reranking.excerpts import BestPassages, split_windows
from crosslens.multilingual.reranking.plan import load_reranker
from crosslens.multilingual.reranking.rerank import Rerank
from crosslens.runs import Hit, Run
from hypothesis import given, settings
from hypothesis import strategies as st

PROMPT = Prompt("test", "{passage}", asks="likelihood", target=" {query}", chat="never")


def find_words(text):
    """Words, and characters of scripts without spaces."""
    return re.findall(r"[一-鿿]|[^\W一-鿿]+", text.casefold())


class Words:
    """A bag of words, two texts a batch."""

    def __init__(self, kind="dense"):
        self.spec = EncoderSpec("fake:words", "1", ("text",), 4096, kind)
        self.seen = Counter()

    def encode(self, items, role):
        items = list(items)
        self.seen[role] += len(items)
        for at in range(0, len(items), 2):
            rows = np.zeros((len(items[at : at + 2]), 4096), np.float32)
            for row, item in zip(rows, items[at : at + 2], strict=True):
                np.add.at(row, [zlib.crc32(word.encode()) % 4096 for word in find_words(item.text or "")], 1)
            yield Dense([item.id for item in items[at : at + 2]], unit(rows))


class Reader:
    """A judge of 24 words a passage that keeps what it was shown."""

    name, revision, fingerprint = "reader", "1", "reader"
    modalities, can = frozenset({"text", "image"}), frozenset({"likelihood"})
    chats, appetite, passage_tokens = False, 1024, 24

    def __init__(self):
        self.usage, self.shown = Counter(), []

    def count_tokens(self, texts):
        return [len(find_words(text)) for text in texts]

    def likelihood(self, prompts, targets):
        texts = [next(part.text for part in prompt.parts if isinstance(part, Passage)) for prompt in prompts]
        self.shown += texts
        return np.array([find_words(text).__len__() + n / 100 for n, text in enumerate(texts)])


FILLER = "Nothing of use stands in this sentence. "
DOCS = {
    "long": Item("long", "Animals\n" + FILLER * 9 + "Cats sleep sixteen hours. " + FILLER * 9, lang="eng"),
    "zho": Item(
        "zho", "动物\n" + "这句话没有什么用处。" * 9 + "猫每天睡十六小时。" + "这句话没有什么用处。" * 9, lang="zho"
    ),
    "start": Item("start", "Cats sleep sixteen hours. " + FILLER * 9, lang="eng"),
    "short": Item("short", "Cats sleep.", lang="eng"),
    "photo": Item("photo", image=b"a picture"),
}
QUERIES = (Item("q1", "cats sleep hours"), Item("q2", "猫 睡 小时"), Item("q3", image=b"a picture"))


class Held:
    def get(self, ids):
        return [DOCS[each] for each in ids]


def rerank(queries=QUERIES, passages=None):
    judge = Reader()
    prompt = PROMPT if queries != QUERIES[2:] else replace(PROMPT, template="{query}{passage}", target="x")
    hits = {query.id: tuple(Hit(id, -n) for n, id in enumerate(DOCS)) for query in queries}
    stage = Rerank(judge, prompt, passages=passages)
    return judge.shown, stage(Run(tuple(queries), hits, docs=Held())).manifest.records[-1].counts


def test_each_query_is_shown_the_window_that_holds_its_answer():
    encoder = Words()
    shown, counts = rerank(QUERIES[:2], BestPassages(encoder))
    english, chinese = shown[:5], shown[5:]
    assert english[0].startswith("Animals\n" + FILLER)
    assert "Cats sleep sixteen" in english[0]
    assert len(find_words(english[0])) <= 24 + 7  # up to the end of the sentence; the judge cuts that
    assert chinese[1].startswith("动物\n这句话")
    assert "猫每天睡十六小时。" in chinese[1]
    # The beginning where that is best, or nothing else is better; documents that fit, and pictures, are as they were.
    plain = [(item.text or "").strip() for item in DOCS.values()]
    assert english[1:] == plain[1:]
    assert [chinese[0], *chinese[2:]] == [plain[0], *plain[2:]]
    assert counts["windowed"] == 2
    assert counts["windows"] == encoder.seen["document"] > 10
    # Each by itself, they are shown the same.
    assert rerank(QUERIES[:1], BestPassages(Words()))[0] + rerank(QUERIES[1:2], BestPassages(Words()))[0] == shown
    assert rerank(QUERIES[:2])[0] == 2 * plain
    assert rerank(QUERIES[2:], BestPassages(encoder))[0] == plain  # there is nothing to compare


SENTENCES = ("One {n} three. ", "四{n}六七。", "Это предложение {n}. ", "x" * 9 + "{n} ", "\n", " {n}word{n} " * 40)


@given(st.lists(st.sampled_from(SENTENCES), min_size=1), st.integers(4, 30))
@settings(max_examples=100, deadline=None)
def test_windows_hold_all_of_a_text_after_its_title(parts, limit):
    numbers = iter(range(10**4, 10**5))
    body = re.sub("{n}", lambda _: str(next(numbers)), "".join(parts)) + "end"
    windows = split_windows("A title\n" + body, limit, Reader().count_tokens)
    head = "A title\n" if limit >= 8 else ""
    body = ("A title\n" + body)[len(head) :]
    covered = 0
    for window in windows:
        assert window.startswith(head)
        begins = body.index(window[len(head) :])
        assert begins <= covered  # no gap
        covered = begins + len(window) - len(head)
    assert covered == len(body)
    assert body.startswith(windows[0][len(head) :])


def test_a_spec_chooses_passages_and_says_what_is_wrong(tiny_judge, tiny_encoder):
    spec = f"likelihood@hf:{tiny_judge}?dtype=float32&passage_tokens=9"
    plain, best = (
        load_reranker(spec + more, device="cpu") for more in ("", f"&passages=best&encoder=hf:{tiny_encoder}")
    )
    assert plain.passages is None
    assert plain == load_reranker(spec + "&passages=start", device="cpu")
    assert "passages" not in plain.describe()  # results of before are found again
    assert best.passages.encoder.spec.name.startswith("hf:")
    assert plain.fingerprint != best.fingerprint
    assert best.judge.count_tokens(["one two", ""])[1] == 0
    for more, message in (("passages=end", "value of passages"), ("encoder=offline:e5-small", "add passages=best")):
        with pytest.raises(InputError, match=message):
            load_reranker(f"{spec}&{more}", device="cpu")
    with pytest.raises(InputError, match="fake:words does not make"):
        BestPassages(Words("multi"))
    with pytest.raises(InputError, match="does not say how it cuts"):
        Rerank(type("Mute", (Reader,), {"passage_tokens": None})(), PROMPT, passages=BestPassages(Words()))
