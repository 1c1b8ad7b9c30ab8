"""What every judge keeps, whatever runs it. A new judge is one entry in KINDS."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from crosslens.checkpoints.packed import require_packed
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.collections.base import InMemoryDocuments
from crosslens.multilingual.judges import Ask, Judge, Sampling, find_judge, load_judge
from crosslens.multilingual.judges.mass import read_mass
from crosslens.multilingual.judges.messages import Attachment, Message, Passage, Seam
from crosslens.multilingual.prompts import list_prompts, load_prompt
from crosslens.multilingual.reranking.plan import load_reranker
from crosslens.pipeline import watch
from crosslens.runs import Run, rank_hits
from crosslens.specs import Spec, bind_options
from stand_ins.http_server import Served, chat_reply, completion_reply
from stand_ins.table import table
from stand_ins.vllm_engine import make_module

TEXTS = (
    "The cat sleeps all day and hunts at night. " * 4,
    "Le chat dort.",
    "猫整天睡觉，晚上捕猎。",
    "x",
    "Кошка спит весь день.",
)
MESSAGES = [Message(("about cats: ", Seam.SEAM, Passage(text), " Is it?"), chat="auto") for text in TEXTS]
LONG = 4096  # tokens of context: prompts are long to a tokenizer of bytes
IDS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
NEOX = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": LONG, "initializer_range": 0.3, **IDS,
}  # fmt: skip


def causal(vocabulary: int) -> object:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    return GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=vocabulary, **NEOX))


def classifier(vocabulary: int) -> object:
    from transformers import GPTNeoXConfig, GPTNeoXForSequenceClassification

    return GPTNeoXForSequenceClassification(GPTNeoXConfig(vocab_size=vocabulary, num_labels=1, **NEOX))


def seq2seq(vocabulary: int) -> object:
    from transformers import BartConfig, BartForConditionalGeneration

    size = {
        f"{side}_{what}": n
        for side in ("encoder", "decoder")
        for what, n in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 64))
    }
    ids = {**IDS, "decoder_start_token_id": 1, "forced_eos_token_id": None}
    config = BartConfig(vocab_size=vocabulary, d_model=32, max_position_embeddings=LONG, init_std=0.3, **size, **ids)
    return BartForConditionalGeneration(config)


class Made:
    """What judges are made from: checkpoints built once, a server that answers by what it is asked."""

    def __init__(self, folder: Path, tokenizer: Path, vision: Path) -> None:
        self.folder, self.tokenizer = folder, tokenizer
        self.vision = shutil.copytree(vision, folder / "vision")
        config = json.loads((self.vision / "config.json").read_text())
        config["text_config"]["max_position_embeddings"] = LONG
        (self.vision / "config.json").write_text(json.dumps(config))
        self.server = Served(reply)

    def checkpoint(self, build: Callable[[int], Any]) -> Path:
        """A checkpoint with random weights and the tokenizer of bytes."""
        from transformers import AutoTokenizer

        where = self.folder / build.__name__
        if not where.exists():
            tokenizer = AutoTokenizer.from_pretrained(self.tokenizer, model_max_length=LONG)
            tokenizer.save_pretrained(where)
            torch.manual_seed(0)
            build(len(tokenizer)).save_pretrained(where)
        return where


def reply(body: dict[str, Any], number: int) -> dict[str, Any]:
    """A model whose answers depend on the whole prompt; both of OpenAI's APIs."""
    prompt = body.get("prompt") or body["messages"][-1]["content"]
    chance = zlib.crc32(prompt.encode()) % 97 / 100 + 0.01
    if body.get("echo"):
        words = [*(f" {word}" for word in prompt.split()), " end"]
        words[0] = words[0].lstrip()
        values = [None, *(-1.0 - len(word) / 10 - chance for word in words[1:])]
        return completion_reply(prompt + " end", words, values)
    if "logprobs" in body:
        return chat_reply("Yes", [{"Yes": chance, "No": 0.9 - chance / 2, "A": 0.03, "B": 0.07}])
    text = f"{chance:.2f} and so on and so on"[: 4 * body["max_tokens"]]
    stop = min((text.find(each) for each in body.get("stop", ()) if each in text), default=len(text))
    finish = "length" if stop == len(text) else "stop"
    if "prompt" in body:
        return completion_reply(text[:stop], finish=finish)
    return chat_reply(text[:stop], finish=finish)


def in_int8(made: Made) -> str:
    try:
        require_packed()
    except InputError as error:
        pytest.skip(str(error))
    return f"hf:{made.checkpoint(causal)}?dtype=int8"


# What makes the SPEC of a judge. Local ones take batches that a test can make small, and can run out of memory.
LOCAL: dict[str, Callable[[Made], str]] = {
    "causal": lambda made: f"hf:{made.checkpoint(causal)}?dtype=float32",
    "causal in int8": in_int8,
    "seq2seq": lambda made: f"hf:{made.checkpoint(seq2seq)}?dtype=float32",
    "classifier": lambda made: f"hf:{made.checkpoint(classifier)}?dtype=float32",
    "vision": lambda made: f"hf:{made.vision}?dtype=float32",
}
KINDS: dict[str, Callable[[Made], str]] = LOCAL | {
    "vllm": lambda made: f"vllm:{made.checkpoint(causal)}?context={LONG}",
    "chat": lambda made: f"openai:judge?url={made.server.url}&context={LONG}",
    "completions": lambda made: f"openai:judge?url={made.server.url}&context={LONG}&api=completions",
}


@pytest.fixture(scope="module")
def made(tiny_judge: Path, tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    found = Made(tmp_path_factory.mktemp("judges"), tiny_judge, tiny_vlm)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "vllm", make_module())
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            patch.delenv(name, raising=False)
        yield found
    found.server.server.shutdown()
    found.server.server.server_close()


@pytest.fixture(scope="module", params=KINDS)
def spec(request: pytest.FixtureRequest, made: Made) -> str:
    return KINDS[request.param](made)


@pytest.fixture(scope="module", params=LOCAL)
def local(request: pytest.FixtureRequest, made: Made) -> str:
    return LOCAL[request.param](made)


def open_judge(spec: str, options: str = "") -> Judge:
    """A judge that is shared with no other test."""
    factory, parsed = find_judge(Spec.parse(f"{spec}{options}"))
    device = "auto" if spec.startswith("vllm") else "cpu"  # it has no CPU
    return factory(parsed.checkpoint, **bind_options(parsed, factory, device=device))


open_once = cache(open_judge)  # to ask what it can do


def answers(judge: Judge, ask: Ask, messages: list[Message]) -> np.ndarray:
    """The answers to one kind of question, as rows of numbers."""
    if ask == "choose":
        return judge.choose(messages, ["Yes", "No"])
    if ask == "likelihood":
        return judge.likelihood(messages, [" how long do cats sleep"] * len(messages))[:, None]
    if ask == "score":
        return judge.score(messages)[:, None]
    return np.array([[each.tokens, hash(each.text) % 1009] for each in judge.generate(messages, max_new_tokens=4)])


def test_it_says_what_it_is(spec: str) -> None:
    judge = open_judge(spec)
    assert judge.name == spec.partition("?")[0]
    assert judge.revision
    assert "text" in judge.modalities
    assert judge.can <= set(get_args(Ask))
    assert judge.appetite > 0
    assert not judge.usage
    others = {judge.fingerprint, open_judge(spec).fingerprint}
    assert len(others) == 1
    assert judge.fingerprint != open_judge(spec, "&passage_tokens=7").fingerprint


def near(spec: str) -> dict[str, float]:
    """How near answers are that are to be the same: in int8 what is between the layers may be bfloat16."""
    return {"atol": 0.03} if "dtype=int8" in spec else {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.parametrize("ask", get_args(Ask))
def test_alone_as_in_a_mixed_batch_and_in_order(spec: str, ask: Ask) -> None:
    judge = open_judge(spec)
    if ask not in judge.can:
        with pytest.raises(InputError, match=f"cannot answer `{ask}`"):
            answers(judge, ask, MESSAGES)
        return
    together = answers(judge, ask, MESSAGES)
    assert judge.usage["calls"] == len(MESSAGES)
    assert judge.usage["prompt_tokens"] > 0
    alone = np.concatenate([answers(judge, ask, [message]) for message in MESSAGES])
    np.testing.assert_allclose(together, alone, **near(spec))
    np.testing.assert_allclose(answers(judge, ask, MESSAGES[::-1])[::-1], together, **near(spec))
    assert len(answers(judge, ask, [])) == 0
    if ask == "choose":
        np.testing.assert_allclose(np.exp(together).sum(axis=1), 1, rtol=1e-6)
    if ask == "likelihood":
        assert (together < 0).all()


@table("labels", [("Yes", "No"), ("A", "B")])
def test_the_label_mass_is_counted_by_language_and_no_more_than_all(spec: str, labels: tuple[str, str]) -> None:
    judge = open_judge(spec)
    if "choose" in judge.can:
        judge.choose([replace(message, language="zho") for message in MESSAGES], labels)
        ((language, (asked, mean)),) = read_mass(judge.usage).items()
        assert language == "zho"
        assert 1 <= asked <= len(MESSAGES)
        assert 0 <= mean <= 1
        assert judge.usage["calls"] == len(MESSAGES)


def test_progress_is_reported_in_the_thread_of_the_caller(spec: str) -> None:
    judge = open_judge(spec)
    seen: list[tuple[int, int]] = []
    with watch(lambda done: seen.append((done, threading.get_ident()))):
        for ask in sorted(judge.can):
            answers(judge, ask, MESSAGES)
    done = [number for number, _ in seen]
    assert done == sorted(done)
    assert done[-1] == judge.usage["calls"] == len(MESSAGES) * len(judge.can)
    assert {thread for _, thread in seen} == {threading.get_ident()}


@table("budget", [1, 30])
def test_the_size_of_batches_changes_nothing(local: str, budget: int) -> None:
    judge = open_judge(local)
    for ask in sorted(judge.can):
        expected = answers(judge, ask, MESSAGES)
        small = open_judge(local)
        small.budget = budget
        np.testing.assert_allclose(answers(small, ask, MESSAGES), expected, **near(local))


def test_out_of_memory_halves_the_batch(local: str) -> None:
    judge, sizes = open_judge(local), []
    messages = [Message((Passage(text), " Is it?"), chat="auto") for text in TEXTS]  # they share no prefix
    expected = {ask: answers(judge, ask, messages) for ask in judge.can}

    def scarce(module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        sizes.append(len(inputs[0]))
        if len(inputs[0]) > 1:
            raise torch.OutOfMemoryError("out of memory")

    for module in judge.model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.register_forward_pre_hook(scarce)
    for ask in judge.can:
        np.testing.assert_allclose(answers(judge, ask, messages), expected[ask], **near(local))
    assert max(sizes) > 1


def test_a_prompt_that_is_too_long_is_one_line_and_a_long_passage_is_cut(spec: str) -> None:
    judge = open_judge(spec)
    ask = next(iter(sorted(judge.can)))
    with pytest.raises(InputError, match="context") as error:
        answers(judge, ask, [Message(("cat " * 6000, Seam.SEAM, Passage("x")), chat="auto")])
    assert "\n" not in str(error.value)
    before = Counter(judge.usage)
    answers(judge, ask, [Message(("query", Seam.SEAM, Passage("猫整天睡觉，" * 400)), chat="auto")])
    assert (judge.usage - before)["cut_passages"] == 1


def test_what_it_cannot_see_is_refused_before_any_work(spec: str) -> None:
    judge = open_judge(spec)
    unseen = "audio" if "image" in judge.modalities else "image"
    message = Message(("Is it? ", Attachment(unseen, b"...")), chat="auto")
    for ask in judge.can:
        with pytest.raises(InputError, match=f"cannot be shown {unseen}"):
            answers(judge, ask, [*MESSAGES, message])
    assert not judge.usage


def test_generation_ends_at_a_stop_string_and_repeats_itself_at_temperature_0(spec: str) -> None:
    judge = open_judge(spec)
    if "generate" not in judge.can:
        with pytest.raises(InputError, match="cannot answer `generate`"):
            judge.generate(MESSAGES)
        return
    (free,) = judge.generate(MESSAGES[:1], max_new_tokens=12)
    assert judge.generate(MESSAGES[:1], max_new_tokens=12) == [free]
    assert free.tokens > 0
    stop = next(text for text in (free.text[n : n + 2] for n in range(1, 9)) if "\ufffd" not in text)
    (stopped,) = judge.generate(MESSAGES[:1], max_new_tokens=12, stop=[stop])
    assert free.text.startswith(stopped.text.removesuffix(stop))
    assert stopped.ended
    with pytest.raises(TypeError, match="beams"):
        judge.generate(MESSAGES, beams=3)
    assert Sampling().temperature == 0


@pytest.mark.parametrize("local", [kind for kind in LOCAL if "int8" not in kind], indirect=True, scope="module")
@table("name", list_prompts())
def test_every_prompt_reranks_or_says_that_it_does_not_fit(local: str, name: str) -> None:
    prompt, judge = load_prompt(name), open_once(local)
    options = "&depth=4&k=2" + ("&thinking=4" if prompt.think else "")
    options += "&window=3&step=2" if prompt.sort == "window" else ""
    docs = {str(n): Item(str(n), text[:30]) for n, text in enumerate(TEXTS)}
    run = Run(
        (Item("q", "how long do cats sleep", lang="eng"),), {"q": rank_hits((each, -float(each)) for each in docs)}
    )
    if prompt.asks not in judge.can or (prompt.chat == "always" and not judge.chats):
        with pytest.raises(InputError, match="cannot answer|no chat template"):
            load_reranker(f"{name}@{local}{options}", device="cpu")
        return
    done = load_reranker(f"{name}@{local}{options}", device="cpu")(replace(run, docs=InMemoryDocuments(docs)))
    assert sorted(hit.id for hit in done["q"]) == sorted(docs)
    assert done.manifest.total("calls") > 0


PACKAGE = """
from dataclasses import dataclass
import numpy as np
from crosslens.multilingual.judges import BaseJudge

class ShortestFirst(BaseJudge):
    can = frozenset({"score"})
    fingerprint = "shortest"

    def __init__(self, checkpoint, *, device="auto", trust_remote_code=False, weight: float = 1.0):
        super().__init__(f"shortest:{checkpoint}", "1")
        self.weight = weight

    def compute_scores(self, prompts):
        self.count_answers(len(prompts))
        return np.array([-self.weight * len(prompt.plain()) for prompt in prompts])

@dataclass(frozen=True, kw_only=True)
class ByLength:
    longest: bool = False

    def __call__(self, hits, k):
        return sorted(hits, key=lambda hit: len(hit.id), reverse=self.longest)
        yield
"""
ENTRY_POINTS = """
[crosslens.judges]
shortest = shortest_judge:ShortestFirst
[crosslens.sorters]
by-length = shortest_judge:ByLength
[crosslens.prompts]
plain-score = shortest_prompts:plain.toml
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny package with a judge and a prompt, installed beside the others."""
    (tmp_path / "shortest_judge.py").write_text(PACKAGE)
    (tmp_path / "shortest_prompts").mkdir()
    (tmp_path / "shortest_prompts/plain.toml").write_text('asks = "score"\ntemplate = "{query} {passage}"')
    info = tmp_path / "shortest-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shortest\nVersion: 1\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    "spec",
    [
        "cross@py:shortest_judge:ShortestFirst:any?weight=2&depth=3",
        "cross@shortest:any?weight=2&depth=3",
        "plain-score@shortest:any?weight=2&depth=3",
    ],
)
def test_judges_and_prompts_of_other_packages(package: None, spec: str) -> None:
    stage = load_reranker(spec)
    assert stage.judge.weight == 2
    docs = {str(n): Item(str(n), text) for n, text in enumerate(TEXTS[:3])}
    run = Run(
        (Item("q", "cats"),), {"q": rank_hits((each, -float(each)) for each in docs)}, docs=InMemoryDocuments(docs)
    )
    done = stage(run)
    assert [hit.id for hit in done["q"]] == ["2", "1", "0"]
    assert done.manifest.total("calls") == 3
    with pytest.raises(InputError, match="cannot answer `choose`"):
        load_reranker(f"yesno@{spec.partition('@')[2]}")


@pytest.mark.parametrize("name", ["by-length", "py:shortest_judge:ByLength"])
def test_sorters_of_other_packages(package: None, name: str) -> None:
    stage = load_reranker(f"cross:{name}@shortest:any?longest=true")
    assert stage.sort.longest
    assert str(stage) == "rerank(cross:bylength@shortest:any, depth=20, alpha=1)"


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("hff:x", "unknown judge family 'hff'; did you mean hf"),
        ("py:shortest_judge", "write py:MODULE:NAME"),
        ("py:no_such_module:Judge", "cannot import no_such_module:Judge"),
        ("shortest:any?wieght=2", "unknown option of shortest 'wieght'; did you mean weight"),
    ],
)
def test_mistakes_in_a_spec_are_one_line(package: None, spec: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as error:
        load_judge(spec)
    assert "\n" not in str(error.value)
