"""The HTTP judge against a real server on this machine: what it sends, and what it reads of the replies."""

from __future__ import annotations

import base64
import io
import logging
import math

import numpy as np
import PIL.Image
import pytest
from crosslens.errors import InputError
from crosslens.multilingual.judges.mass import leave_out_mass, read_mass
from crosslens.multilingual.judges.messages import Attachment, Message, Passage
from crosslens.multilingual.judges.openai import BEGUN, OpenAIJudge
from stand_ins.http_server import KEY, LABELS, ask, chat_reply, completion_reply, echo_replies, error_reply
from stand_ins.table import table


def test_choose_sums_the_ways_to_say_a_label_and_normalises(serve):
    served, judge = serve(
        lambda *_: chat_reply("A", [{"A": 0.3, " A": 0.2, "B": 0.1, "▁B": 0.05, "b": 0.02, "The": 0.3}])
    )
    row = judge.choose([ask()], LABELS)[0]
    assert np.exp(row).sum() == pytest.approx(1)
    assert row[0] - row[1] == pytest.approx(math.log(0.5 / 0.15))
    # C is not among the tokens shown: less likely than the least of them, and finite.
    assert row[0] - row[2] == pytest.approx(math.log(0.5) - math.log(0.02) + 1)
    body = served.bodies[0]
    assert (body["logprobs"], body["top_logprobs"], body["max_tokens"], body["temperature"]) == (True, 20, 1, 0)
    assert body["messages"] == [{"role": "user", "content": "which?"}]
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert served.keys == [f"Bearer {KEY}"]
    counts = {"calls": 1, "prompt_tokens": 10, "generated_tokens": 1, "cut_passages": 0}
    assert leave_out_mass(judge.usage) == counts
    assert read_mass(judge.usage) == {"eng": (1, pytest.approx(0.65))}


def test_a_server_that_shows_one_sure_token_leaves_little_for_the_others(serve):
    _, judge = serve(lambda *_: chat_reply("B", [{"B": 0.999}]))
    assert np.exp(judge.choose([ask()], LABELS)[0]) == pytest.approx([0.001, 0.998, 0.001], abs=2e-3)


@pytest.mark.parametrize(
    "personality",
    [
        lambda body: error_reply("logprobs is not supported with this model") if "logprobs" in body else None,
        lambda body: (
            error_reply("You are not allowed to request logprobs from this model", 403) if "logprobs" in body else None
        ),
        lambda body: None,
    ],
    ids=["400", "403", "null"],
)
def test_without_log_probabilities_the_answer_is_generated_counted_and_said_once(serve, caplog, personality):
    served, judge = serve(lambda body, _: personality(body) or chat_reply("The answer is B."), concurrency=1)
    with caplog.at_level(logging.WARNING, "crosslens"):
        rows = judge.choose([ask(), ask(), ask()], LABELS)
    np.testing.assert_allclose(np.exp(rows), [[0.005, 0.99, 0.005]] * 3)
    assert judge.usage["without_logprobs"] == 3
    assert judge.usage["unreadable"] == 0
    assert [each for each in caplog.messages if "gives no log-probabilities" in each] == caplog.messages
    assert len(caplog.messages) == 1
    assert sum("logprobs" in body for body in served.bodies) <= 2  # learnt, not tried again
    assert "logprobs" not in served.bodies[-1]


def test_labels_that_begin_others_are_generated(serve):
    labels = [str(n) + "]" for n in range(1, 13)]
    served, judge = serve(lambda *_: chat_reply("10]"))
    row = np.exp(judge.choose([ask(answer="[")], labels)[0])
    assert row.argmax() == 9
    assert row[9] == pytest.approx(0.99)
    assert judge.usage["without_logprobs"] == 1
    assert not any("logprobs" in body for body in served.bodies)


def test_a_label_after_markup_is_found_further_on_and_then_looked_for_there_at_once(serve):
    tops = [{"**": 0.98, "A": 0.001, "C": 0.0005}, {"B": 0.8, "A": 0.1}, {"**": 1.0}]
    served, judge = serve(lambda body, _: chat_reply("**B**", tops[: body["max_tokens"]], "length"), concurrency=1)
    rows = judge.choose([ask()] * 3, LABELS)
    assert (rows.argmax(axis=1) == 1).all()
    assert read_mass(judge.usage) == {"eng": (3, pytest.approx(0.9))}
    assert [body["max_tokens"] for body in served.bodies] == [1, 8, 8, 8]
    assert judge.usage["without_logprobs"] == 0


def test_a_model_that_explains_itself_first_is_read_to_the_end(serve):
    def chatty(body, _):
        if "logprobs" in body:
            return chat_reply("Both", [{"Both": 0.9, "A": 0.01}] * body["max_tokens"], "length")
        return (
            chat_reply("Both passages speak of it,", finish="length")
            if body["max_tokens"] < 100
            else chat_reply("Answer: C")
        )

    served, judge = serve(chatty)
    assert judge.choose([ask()], LABELS)[0].argmax() == 2
    assert [body["max_tokens"] for body in served.bodies] == [1, 8, 32, 2048]
    assert judge.usage["without_logprobs"] == 1


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_model_that_thinks_first_is_read_after_its_thought(serve, field):
    def thinker(body, _):
        if body["max_tokens"] < 100:
            return chat_reply(
                "", [{"Hm": 0.9, "A": 0.1}] if "logprobs" in body else None, "length", **{field: "Hm, A or"}
            )
        return chat_reply("C", **{field: "Hm, A or C? C."}, usage=(10, 9))

    _, judge = serve(thinker)
    assert judge.choose([ask()], LABELS)[0].argmax() == 2
    [thought] = judge.generate([ask()], max_new_tokens=200)
    assert (thought.text, thought.tokens, thought.ended) == ("<think>Hm, A or C? C.</think>C", 9, True)
    # A prompt that opens the thought itself gets what comes after the opening, up to where it wants to stop.
    [thought] = judge.generate([ask(answer="<think>")], max_new_tokens=200, stop=["</think>"])
    assert (thought.text, thought.ended) == ("Hm, A or C? C.</think>", True)
    [cut] = judge.generate([ask()], max_new_tokens=20)
    assert (cut.text, cut.ended) == ("<think>Hm, A or", False)


@table(
    ("reply", "counts"),
    [
        (chat_reply(None, refusal="I cannot judge that."), {"refused": 1, "unreadable": 0}),
        (chat_reply("", finish="content_filter"), {"refused": 1, "unreadable": 0}),
        (chat_reply("", [], "stop"), {"empty": 1, "without_logprobs": 1}),
        (chat_reply("🤷", [{"🤷": 1.0}]), {"unreadable": 1, "without_logprobs": 1}),
        (chat_reply("<think>A without end", [{"<think>": 1.0}]), {"unclosed_thought": 1, "without_logprobs": 1}),
    ],
)
def test_an_answer_that_names_no_label_is_even_odds_and_counted(serve, reply, counts):
    _, judge = serve(lambda *_: reply)
    np.testing.assert_allclose(np.exp(judge.choose([ask()], LABELS)), [[1 / 3] * 3])
    assert {kind: judge.usage[kind] for kind in counts} == counts


def test_generate_passes_its_sampling_on_and_says_whether_it_ended(serve):
    def answer(body, _):
        return chat_reply("one two", finish="length" if body["max_tokens"] == 2 else "stop", usage=(5, 2))

    served, judge = serve(answer, seed=3)
    [cut] = judge.generate([ask(system="Be brief.")], max_new_tokens=2)
    [whole] = judge.generate([ask()], max_new_tokens=9, stop=["wo"], temperature=0.7, seed=11)
    assert (cut.text, cut.tokens, cut.ended) == ("one two", 2, False)
    assert (whole.text, whole.ended) == ("one two", True)
    assert served.bodies[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (served.bodies[0]["seed"], served.bodies[0]["temperature"]) == (3, 0)
    wanted = {"max_tokens": 9, "stop": ["wo"], "temperature": 0.7, "seed": 11}
    assert {key: served.bodies[1][key] for key in wanted} == wanted
    assert judge.usage["generated_tokens"] == 4


def test_how_an_answer_begins_is_said_in_the_user_turn_or_left_open_for_the_server(serve):
    served, judge = serve(lambda *_: chat_reply("B", [{"B": 0.9}]))
    judge.choose([ask(answer="Best: [")], LABELS)
    assert served.bodies[0]["messages"] == [{"role": "user", "content": f"which?{BEGUN}Best: ["}]
    judge.choose([ask(answer="<think>so</think>[")], LABELS)
    assert served.bodies[1]["messages"][0]["content"].endswith("<think>so</think>[")
    assert served.bodies[1]["chat_template_kwargs"] == {"enable_thinking": False}
    judge.choose([ask(answer="<think>\n\n</think>\n\n")], LABELS)
    assert served.bodies.pop()["messages"] == [{"role": "user", "content": "which?"}]
    judge.generate([ask(answer="<think>")])
    assert served.bodies[2]["messages"] == [{"role": "user", "content": "which?"}]
    assert served.bodies[2]["chat_template_kwargs"] == {"enable_thinking": True}

    served, judge = serve(lambda *_: chat_reply("B", [{"B": 0.9}]), prefill=True)
    judge.choose([ask(answer="Best: [")], LABELS)
    body = served.bodies[0]
    assert body["messages"] == [{"role": "user", "content": "which?"}, {"role": "assistant", "content": "Best: ["}]
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)

    # llama.cpp's answer has what was begun for it once more, vLLM's has not.
    for said in ("Best: [B] and [C]", "B] and [C]"):
        _, judge = serve(lambda *_, said=said: chat_reply(said), prefill=True)
        assert judge.generate([ask(answer="Best: [")], stop=("]",))[0].text == "B]"


def spaced(text):
    return [word if n == 0 else f" {word}" for n, word in enumerate(text.split(" "))]


def test_completions_send_plain_text_and_read_both_forms_of_log_probabilities(serve):
    def answer(body, _):
        if "llama" in body["prompt"]:
            choice = chat_reply(" B", [{" B": 0.6, " A": 0.3}])["choices"][0]
            return {"choices": [{"text": " B", "logprobs": choice["logprobs"]}]}
        return completion_reply(" A", [" A"], [math.log(0.02)], [{" A": math.log(0.02), " B": math.log(0.01)}])

    served, judge = serve(answer, api="completions", concurrency=1)
    rows = judge.choose([ask(system="S", answer="Answer:"), ask("llama", chat="never")], LABELS[:2])
    np.testing.assert_allclose(np.exp(rows), [[2 / 3, 1 / 3], [1 / 3, 2 / 3]])
    assert (served.paths[0], served.bodies[0]["prompt"]) == ("/v1/completions", "S\n\nwhich?Answer:")
    assert served.bodies[0]["logprobs"] == 20
    assert judge.can == {"choose", "generate", "likelihood"}
    assert not judge.chats


def test_likelihood_is_the_mean_over_the_targets_tokens(serve):
    served, judge = serve(echo_replies(lambda text: ["<bos>", *spaced(text)]), api="completions")
    message = Message((Passage("cats sleep"), " so:"))
    found = judge.likelihood([message, message], [" how long", " why"])
    np.testing.assert_allclose(found, [-(4 + 5) / 2, -4])
    assert {key: served.bodies[0][key] for key in ("echo", "max_tokens", "logprobs")} == {
        "echo": True,
        "max_tokens": 1,
        "logprobs": 1,
    }
    assert len(served.bodies) == 2
    assert judge.usage["calls"] == 2


def test_likelihood_of_tokens_that_are_parts_of_characters(serve):
    def as_bytes(text):
        return [f"bytes:\\x{byte:02x}" for byte in text.encode()]

    served, judge = serve(echo_replies(as_bytes), api="completions")
    found = judge.likelihood([Message(("猫",))], ["睡"])
    np.testing.assert_allclose(found, [-(3 + 4 + 5) / 3])
    assert sorted(body["prompt"] for body in served.bodies) == ["猫", "猫睡"]


@pytest.mark.parametrize(
    "answer",
    [
        lambda body, _: error_reply("Only no echo is supported"),
        lambda body, _: error_reply("Only no echo is supported", 500),  # llama.cpp's
        lambda body, _: completion_reply(" x", [" x"], [-1.0]),
        lambda body, _: completion_reply(" x"),
    ],
)
def test_a_server_that_does_not_echo_has_no_likelihood(serve, answer):
    _, judge = serve(answer, api="completions")
    with pytest.raises(InputError, match="needs a completions API that echoes the prompt's log-probabilities"):
        judge.likelihood([ask(chat="never")], ["x"])


def test_what_the_judge_cannot_do_is_refused_before_anything_is_sent(serve):
    served, chat = serve(lambda *_: chat_reply("A"))
    with pytest.raises(InputError, match=r"cannot answer `likelihood` questions .* or api=completions"):
        chat.likelihood([ask()], ["x"])
    with pytest.raises(InputError, match="cannot answer `score`"):
        chat.score([ask()])
    with pytest.raises(InputError, match=r"chat=never.*set api=completions"):
        chat.choose([ask(chat="never")], LABELS)
    with pytest.raises(InputError, match="set images=true"):
        chat.choose([Message((Attachment("image", b"..."),), chat="auto")], LABELS)
    plain = OpenAIJudge("judge", url=served.url, api="completions")
    with pytest.raises(InputError, match="needs a chat template"):
        plain.choose([ask(chat="always")], LABELS)
    with pytest.raises(InputError, match="a target is empty"):
        plain.likelihood([ask()], [""])
    assert not served.bodies


def test_pictures_are_decoded_bounded_and_sent_in_their_place(serve):
    served, judge = serve(lambda *_: chat_reply("A", [{"A": 0.9}]), images=True)
    assert judge.modalities == {"text", "image"}
    red = PIL.Image.new("RGB", (1500, 1000), (255, 0, 0))
    out = io.BytesIO()
    red.save(out, "PNG")
    judge.choose(
        [Message(("A: ", Passage("cats"), Attachment("image", out.getvalue()), "\nB: "), chat="auto", answer="[")],
        LABELS,
    )
    parts = served.bodies[0]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url", "text", "text"]
    assert [part["text"] for part in parts if "text" in part] == ["A: cats", "\nB: ", f"{BEGUN}["]
    kind, _, data = parts[1]["image_url"]["url"].partition(",")
    assert kind == "data:image/jpeg;base64"
    seen = PIL.Image.open(io.BytesIO(base64.b64decode(data)))
    assert seen.width * seen.height <= 1 << 20
    assert seen.getpixel((5, 5))[0] > 200
    with pytest.raises(InputError, match="truncated or damaged|not a picture"):
        judge.choose([Message((Attachment("image", b"GIF89a nothing"),), chat="auto")], LABELS)


def test_passages_are_cut_by_estimate_and_the_query_never(serve):
    served, judge = serve(lambda *_: chat_reply("A", [{"A": 0.9}]), passage_tokens=10, context=400)
    judge.choose([Message((Passage("猫" * 50), " the query"), chat="auto")], LABELS)
    assert served.bodies[0]["messages"][0]["content"] == "猫" * 10 + " the query"
    assert judge.usage["cut_passages"] == 1
    with pytest.raises(InputError, match="its context is too short for one passage"):
        judge.choose([Message((Passage("猫" * 50), "query " * 300), chat="auto")], LABELS)


def test_lone_surrogates_do_not_break_a_request(serve):
    served, judge = serve(lambda *_: chat_reply("A", [{"A": 0.9}]))
    judge.choose([ask("half \ud83d surrogate")], LABELS)
    assert served.bodies[0]["messages"][0]["content"] == "half \ufffd surrogate"


def test_fingerprint_and_revision_name_the_model_and_never_the_key(serve):
    served, judge = serve(
        lambda _, n: chat_reply("A", [{"A": 0.9}]) | {"system_fingerprint": f"fp{n // 2}"}, concurrency=1
    )
    before = judge.fingerprint
    assert judge.name == "openai:judge"
    assert judge.revision == "unknown"
    judge.choose([ask()] * 2, LABELS)
    assert judge.revision == "judge-v1/fp0"
    judge.choose([ask()], LABELS)
    assert judge.revision == "unknown"  # it changed under way
    assert judge.fingerprint == before
    assert served.url.split("/")[2] in before
    assert KEY not in before + repr(judge) + str(vars(judge))
    others = [
        {"seed": 1},
        {"passage_tokens": 9},
        {"context": 4096},
        {"images": True},
        {"prefill": True},
        {"api": "completions"},
    ]
    prints = {OpenAIJudge("judge", url=served.url, **each).fingerprint for each in others} | {before}
    assert len(prints) == len(others) + 1
