"""The HTTP judge against a real server on this machine that speaks the protocol in several personalities."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import math
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import PIL.Image
import pytest
from crosslens.errors import CrosslensError, InputError
from crosslens.multilingual.judges.estimates import Estimate
from crosslens.multilingual.judges.messages import Message, Passage, Picture
from crosslens.multilingual.judges.openai import BEGUN, open_openai
from crosslens.multilingual.judges.replies import Labels, tail
from crosslens.pipeline import watch

KEY = "sk-secret-0123456789"
LABELS = ["A", "B", "C"]


def said(text="", tops=None, finish="stop", usage=(10, 1), **message):
    """A chat completion; `tops` holds, for each place, tokens and their probabilities."""
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": text, **message},
    }
    if tops is not None:
        content = []
        for place in tops:
            shown = [{"token": token, "logprob": math.log(p)} for token, p in place.items()]
            content.append({**shown[0], "top_logprobs": shown})
        choice["logprobs"] = {"content": content}
    reply = {"model": "judge-v1", "system_fingerprint": "fp1", "choices": [choice]}
    if usage:
        reply["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return reply


def refused(message, status=400, **more):
    return status, {"error": {"message": message, "type": "invalid_request_error", **more}}


class Served:
    """A server that answers each body by `answer(body, number)`: a reply, a status and reply, or raw bytes."""

    def __init__(self, answer):
        self.bodies, self.paths, self.keys, self.busy, self.most = [], [], [], 0, 0
        lock = threading.Lock()
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(served.bodies)
                    served.bodies.append(body)
                    served.paths.append(self.path)
                    served.keys.append(self.headers["Authorization"])
                    served.busy += 1
                    served.most = max(served.most, served.busy)
                try:
                    found = answer(body, number)
                finally:
                    with lock:
                        served.busy -= 1
                if found is None:  # dies without a word
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, reply, headers = (*found, {})[:3] if isinstance(found, tuple) else (200, found, {})
                raw = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_):
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_):  # clients that gave up
                pass

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()


@pytest.fixture
def serve(monkeypatch):
    """Start a personality; returns it, and a judge that asks it."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "OPENAI_BASE_URL",
    ):
        monkeypatch.delenv(name, raising=False)
    running = []

    def start(answer, **options):
        running.append(Served(answer))
        options = {"retries": 0, "timeout": 5} | options
        return running[-1], open_openai("judge", url=running[-1].url, **options)

    yield start
    for each in running:
        each.server.shutdown()
        each.server.server_close()


def ask(text="which?", **more):
    return Message((text,), **({"chat": "auto"} | more))


def failure(judge, kind=CrosslensError, prompts=None):
    with pytest.raises(CrosslensError) as caught:
        judge.choose(prompts or [ask()], LABELS)
    assert type(caught.value) is kind
    text = str(caught.value)
    assert "\n" not in text
    assert KEY not in text
    assert "judge" in text
    return text


def test_choose_sums_the_ways_to_say_a_label_and_normalises(serve):
    served, judge = serve(
        lambda *_: said("A", [{"A": 0.3, " A": 0.2, "B": 0.1, "▁B": 0.05, "b": 0.02, "The": 0.3}])
    )
    row = judge.choose([ask()], LABELS)[0]
    assert np.exp(row).sum() == pytest.approx(1)
    assert row[0] - row[1] == pytest.approx(math.log(0.5 / 0.15))
    # C is not among the tokens shown: less likely than the least of them, and finite.
    assert row[0] - row[2] == pytest.approx(math.log(0.5) - math.log(0.02) + 1)
    body = served.bodies[0]
    assert (body["logprobs"], body["top_logprobs"], body["max_tokens"], body["temperature"]) == (
        True,
        20,
        1,
        0,
    )
    assert body["messages"] == [{"role": "user", "content": "which?"}]
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert served.keys == [f"Bearer {KEY}"]
    assert judge.usage == {"calls": 1, "prompt_tokens": 10, "generated_tokens": 1, "cut_passages": 0}


def test_a_server_that_shows_one_sure_token_leaves_little_for_the_others(serve):
    _, judge = serve(lambda *_: said("B", [{"B": 0.999}]))
    assert np.exp(judge.choose([ask()], LABELS)[0]) == pytest.approx([0.001, 0.998, 0.001], abs=2e-3)


@pytest.mark.parametrize(
    ("labels", "token", "place"),
    [
        (LABELS, "A", 0),
        (LABELS, " A", 0),
        (LABELS, "ĠB", 1),
        (LABELS, "[C", 2),
        (LABELS, "A]", 0),
        (LABELS, "a", None),
        (LABELS, "Answer", None),
        (LABELS, "**", None),
        (["Yes", "No"], " yes", 0),
        (["Yes", "No"], "N", 1),
        (["Yes", "No"], "Not", None),
        (["1]", "2]"], "2", 1),
        (["1]</answer>", "2]</answer>"], "2", 1),
        (["true", "false"], " false", 1),
        (["हाँ", "नहीं"], "नहीं", 1),
        (["是", "否"], "否", 1),
        (["Relevant", "Related"], "Rel", None),
        (["Relevant", "Related"], "Relev", 0),
    ],
)
def test_a_token_says_the_label_that_it_is_or_alone_can_begin(labels, token, place):
    assert Labels(labels).said_by(token) == place


@pytest.mark.parametrize(
    ("labels", "ambiguous"),
    [
        (LABELS, False),
        (["1]", "10]"], True),
        (["1]</answer>", "10]</answer>"], True),
        (["1", "2"], False),
        (["No", "Not relevant"], True),
        (["yes", "Yes"], True),
    ],
)
def test_labels_of_which_one_begins_another_cannot_be_told_by_a_token(labels, ambiguous):
    assert Labels(labels).ambiguous == ambiguous


def test_answers_keep_the_order_and_requests_the_bound(serve):
    def answer(body, number):
        time.sleep(0.05 if number % 3 else 0.12)
        p = float(body["messages"][-1]["content"])
        return said("A", [{"A": p, "B": 1 - p}])

    served, judge = serve(answer, concurrency=5)
    told = []
    wanted = np.linspace(0.1, 0.9, 23)
    with watch(told.append):
        rows = judge.choose([ask(str(p)) for p in wanted], LABELS[:2])
    np.testing.assert_allclose(np.exp(rows[:, 0]), wanted)
    assert served.most == 5
    assert told == list(range(1, 24))
    assert judge.usage["calls"] == 23
    assert judge.appetite == 20
    assert judge.choose([], LABELS).shape == (0, 3)


def test_it_works_inside_a_running_loop(serve):
    _, judge = serve(lambda *_: said("B", [{"B": 0.6, "A": 0.4}]))

    async def notebook():
        return judge.choose([ask()] * 3, LABELS[:2])

    np.testing.assert_allclose(np.exp(asyncio.run(notebook())), [[0.4, 0.6]] * 3)


def test_ctrl_c_ends_the_requests_under_way(serve):
    served, judge = serve(lambda *_: time.sleep(6) or said("A", [{"A": 1.0}]))
    timer = threading.Timer(0.5, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    # A job in the background of a shell is started with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            judge.choose([ask()] * 20, LABELS)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 5
    assert len(served.bodies) <= 8


@pytest.mark.parametrize(
    "personality",
    [
        lambda body: refused("logprobs is not supported with this model") if "logprobs" in body else None,
        lambda body: (
            refused("You are not allowed to request logprobs from this model", 403)
            if "logprobs" in body
            else None
        ),
        lambda body: None,
    ],
    ids=["400", "403", "null"],
)
def test_without_log_probabilities_the_answer_is_generated_counted_and_said_once(serve, caplog, personality):
    served, judge = serve(lambda body, _: personality(body) or said("The answer is B."), concurrency=1)
    with caplog.at_level(logging.WARNING, "crosslens"):
        rows = judge.choose([ask(), ask(), ask()], LABELS)
    np.testing.assert_allclose(np.exp(rows), [[0.005, 0.99, 0.005]] * 3)
    assert judge.usage["without_logprobs"] == 3
    assert judge.usage["unreadable"] == 0
    assert [each for each in caplog.messages if "gives no log-probabilities" in each] == caplog.messages
    assert len(caplog.messages) == 1
    assert sum("logprobs" in body for body in served.bodies) <= 2  # learnt, not tried again
    assert "logprobs" not in served.bodies[-1]


def test_a_server_that_shows_five_tokens_is_asked_for_five(serve, caplog):
    def tgi(body, _):
        if body.get("top_logprobs", 0) > 5:
            return refused("Input validation error: `top_n_tokens` must be >= 0 and <= 5. Given: 20", 422)
        return said("A", [{"A": 0.75, "B": 0.25}])

    served, judge = serve(tgi)
    np.testing.assert_allclose(np.exp(judge.choose([ask()] * 12, LABELS[:2])), [[0.75, 0.25]] * 12)
    assert judge.usage["without_logprobs"] == 0
    assert not caplog.messages
    assert served.bodies[-1]["top_logprobs"] == 5


def test_labels_that_begin_others_are_generated(serve):
    labels = [str(n) + "]" for n in range(1, 13)]
    served, judge = serve(lambda *_: said("10]"))
    row = np.exp(judge.choose([ask(answer="[")], labels)[0])
    assert row.argmax() == 9
    assert row[9] == pytest.approx(0.99)
    assert judge.usage["without_logprobs"] == 1
    assert not any("logprobs" in body for body in served.bodies)


def test_a_label_after_markup_is_found_further_on_and_then_looked_for_there_at_once(serve):
    tops = [{"**": 0.98, "A": 0.001, "C": 0.0005}, {"B": 0.8, "A": 0.1}, {"**": 1.0}]
    served, judge = serve(lambda body, _: said("**B**", tops[: body["max_tokens"]], "length"), concurrency=1)
    rows = judge.choose([ask()] * 3, LABELS)
    assert (rows.argmax(axis=1) == 1).all()
    assert [body["max_tokens"] for body in served.bodies] == [1, 8, 8, 8]
    assert judge.usage["without_logprobs"] == 0


def test_a_model_that_explains_itself_first_is_read_to_the_end(serve):
    def chatty(body, _):
        if "logprobs" in body:
            return said("Both", [{"Both": 0.9, "A": 0.01}] * body["max_tokens"], "length")
        return (
            said("Both passages speak of it,", finish="length")
            if body["max_tokens"] < 100
            else said("Answer: C")
        )

    served, judge = serve(chatty)
    assert judge.choose([ask()], LABELS)[0].argmax() == 2
    assert [body["max_tokens"] for body in served.bodies] == [1, 8, 32, 2048]
    assert judge.usage["without_logprobs"] == 1


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_model_that_thinks_first_is_read_after_its_thought(serve, field):
    def thinker(body, _):
        if body["max_tokens"] < 100:
            return said(
                "", [{"Hm": 0.9, "A": 0.1}] if "logprobs" in body else None, "length", **{field: "Hm, A or"}
            )
        return said("C", **{field: "Hm, A or C? C."}, usage=(10, 9))

    _, judge = serve(thinker)
    assert judge.choose([ask()], LABELS)[0].argmax() == 2
    [thought] = judge.generate([ask()], max_new_tokens=200)
    assert (thought.text, thought.tokens, thought.ended) == ("<think>Hm, A or C? C.</think>C", 9, True)
    # A prompt that opens the thought itself gets what comes after the opening, up to where it wants to stop.
    [thought] = judge.generate([ask(answer="<think>")], max_new_tokens=200, stop=["</think>"])
    assert (thought.text, thought.ended) == ("Hm, A or C? C.</think>", True)
    [cut] = judge.generate([ask()], max_new_tokens=20)
    assert (cut.text, cut.ended) == ("<think>Hm, A or", False)


@pytest.mark.parametrize(
    ("reply", "counts"),
    [
        (said(None, refusal="I cannot judge that."), {"refused": 1, "unreadable": 0}),
        (said("", finish="content_filter"), {"refused": 1, "unreadable": 0}),
        (said("", [], "stop"), {"empty": 1, "without_logprobs": 1}),
        (said("🤷", [{"🤷": 1.0}]), {"unreadable": 1, "without_logprobs": 1}),
        (said("<think>A without end", [{"<think>": 1.0}]), {"unclosed_thought": 1, "without_logprobs": 1}),
    ],
)
def test_an_answer_that_names_no_label_is_even_odds_and_counted(serve, reply, counts):
    _, judge = serve(lambda *_: reply)
    np.testing.assert_allclose(np.exp(judge.choose([ask()], LABELS)), [[1 / 3] * 3])
    assert {kind: judge.usage[kind] for kind in counts} == counts


def test_a_busy_server_is_waited_for_as_long_as_it_says_and_counted(serve):
    times = []

    def busy(_, number):
        times.append(time.monotonic())
        if number == 0:
            return 429, {"error": {"message": "slow down"}}, {"Retry-After": "0.3"}
        return said("A", [{"A": 0.9}])

    _, judge = serve(busy, retries=2)
    assert judge.choose([ask()], LABELS)[0].argmax() == 0
    assert judge.usage["retries"] == 1
    assert 0.28 < times[1] - times[0] < 2


def test_errors_that_pass_are_retried(serve):
    def flapping(_, number):
        if number % 3 == 0:
            return 500, b"Internal Server Error", {"retry-after-ms": "10"}
        return None if number % 3 == 1 else said("A", [{"A": 0.9}])

    _, judge = serve(flapping, retries=3, concurrency=1)
    assert judge.choose([ask()], LABELS)[0].argmax() == 0
    assert judge.usage["retries"] == 2


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (
            refused(f"Incorrect API key provided: {KEY}", 401),
            InputError,
            "refuses access (401); set OPENAI_API_KEY",
        ),
        (refused(f"no access for {KEY}", 403), InputError, "refuses access (403)"),
        (refused("The model `judge` does not exist.", 404), InputError, "is the model's name right"),
        (
            refused(
                "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens in logprobs"
            ),
            InputError,
            "set context= to the model's length, or lower passage_tokens=",
        ),
        (refused("the request exceeds the available context size"), InputError, "set context="),
        (refused(f"bad\nthings\x1b[31m {KEY}"), InputError, "400 bad things [31m ...; look at the options"),
        (refused("You exceeded your quota", 429), CrosslensError, "lower concurrency= or raise retries="),
        (
            (503, b"<html>Bad gateway</html>"),
            CrosslensError,
            "fails: 503 <html>Bad gateway</html>; look at the",
        ),
        ((200, b'{"choices": [{"mess'), CrosslensError, "something else than the OpenAI protocol"),
        ((200, b"\xff\xfe"), CrosslensError, "something else than the OpenAI protocol"),
        ((200, b"[]"), CrosslensError, "something else than the OpenAI protocol ([])"),
        ((200, {"choices": []}), CrosslensError, "something else than the OpenAI protocol"),
        ((200, {"choices": [{"message": "A"}]}), CrosslensError, "something else than the OpenAI protocol"),
        ((200, {"error": f"no credit, {KEY}"}), CrosslensError, "no credit, ..."),
        (None, CrosslensError, "cannot be reached"),
    ],
)
def test_every_failure_is_one_line_without_the_key(serve, reply, kind, words):
    served, judge = serve(lambda *_: reply)
    text = failure(judge, kind, [ask()] * 20)
    assert words in text
    assert served.url in text
    assert len(served.bodies) <= 8  # the first error ends the work


def test_a_dead_server_is_one_line(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1/"
    text = failure(open_openai("judge", url=url, retries=1))
    assert "cannot be reached (tried 2 times)" in text
    assert text.endswith("start the server or mend the url")
    assert "//127" in text


def test_a_server_that_dies_during_the_work_is_one_line(serve):
    served, judge = serve(lambda _, number: said("A", [{"A": 0.9}]) if number < 6 else None, concurrency=2)
    assert "cannot be reached" in failure(judge, prompts=[ask()] * 30)
    assert judge.usage["calls"] >= 5
    assert len(served.bodies) <= 8


def test_a_slow_server_is_one_line(serve):
    _, judge = serve(lambda *_: time.sleep(0.6) or said("A"), timeout=0.1, retries=1)
    began = time.monotonic()
    assert "gave no answer within 0.1 s (tried 2 times); raise timeout=" in failure(judge)
    assert time.monotonic() - began < 2
    assert judge.usage["retries"] == 1


def test_the_budget_ends_the_work_with_one_line_that_says_how_to_go_on(serve):
    served, judge = serve(lambda *_: said("A", [{"A": 0.9}], usage=(99, 1)), budget=450, concurrency=1)
    judge.choose([ask()] * 3, LABELS)
    assert "the budget of 450 tokens is spent (500); raise budget=" in failure(judge, prompts=[ask()] * 5)
    assert len(served.bodies) == 5
    assert judge.usage["calls"] == 5


def test_tokens_that_the_server_does_not_count_are_estimated_and_counted_as_such(serve):
    _, judge = serve(lambda *_: said("A", [{"A": 0.9}], usage=None), budget=50)
    judge.choose([ask("x" * 300)], LABELS)
    assert (judge.usage["prompt_tokens"], judge.usage["tokens_estimated"]) == (100, 1)
    assert "budget" in failure(judge)


def test_generate_passes_its_sampling_on_and_tells_whether_it_ended(serve):
    def answer(body, _):
        return said("one two", finish="length" if body["max_tokens"] == 2 else "stop", usage=(5, 2))

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


def test_parameters_that_a_server_does_not_take_are_left_off_and_said(serve, caplog):
    def strict(body, _):
        for key in ("chat_template_kwargs", "seed"):
            if key in body:
                return refused(f"Unrecognized request argument supplied: {key}")
        if "max_tokens" in body:
            return refused(
                "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
                param="max_tokens",
            )
        if body["temperature"] == 0:
            return refused("'temperature' does not support 0 with this model.", param="temperature")
        return said("fine")

    def lenient(body, number):
        return strict({"temperature": 1, **body}, number)

    served, judge = serve(lenient)
    assert judge.generate([ask()], max_new_tokens=7)[0].text == "fine"
    assert served.bodies[-1] == {
        "model": "judge",
        "messages": [{"role": "user", "content": "which?"}],
        "max_completion_tokens": 7,
    }
    assert sorted(text.split("take ")[1].split(",")[0] for text in caplog.messages) == [
        "chat_template_kwargs",
        "seed",
        "temperature",
    ]


def test_how_an_answer_begins_is_said_in_the_user_turn_or_left_open_for_the_server(serve):
    served, judge = serve(lambda *_: said("B", [{"B": 0.9}]))
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

    served, judge = serve(lambda *_: said("B", [{"B": 0.9}]), prefill=True)
    judge.choose([ask(answer="Best: [")], LABELS)
    body = served.bodies[0]
    assert body["messages"] == [
        {"role": "user", "content": "which?"},
        {"role": "assistant", "content": "Best: ["},
    ]
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def completed(text, tokens=(), values=(), tops=None, generated=1):
    """A completion of the older API."""
    shown = {"tokens": list(tokens), "token_logprobs": list(values), "top_logprobs": tops}
    usage = {"prompt_tokens": max(len(tokens) - generated, 1), "completion_tokens": generated}
    return {
        "choices": [{"text": text, "finish_reason": "length", "logprobs": shown if tokens else None}],
        "usage": usage,
    }


def test_completions_send_plain_text_and_read_both_forms_of_log_probabilities(serve):
    def answer(body, _):
        if "llama" in body["prompt"]:
            choice = said(" B", [{" B": 0.6, " A": 0.3}])["choices"][0]
            return {"choices": [{"text": " B", "logprobs": choice["logprobs"]}]}
        return completed(" A", [" A"], [math.log(0.02)], [{" A": math.log(0.02), " B": math.log(0.01)}])

    served, judge = serve(answer, api="completions", concurrency=1)
    rows = judge.choose([ask(system="S", answer="Answer:"), ask("llama", chat="never")], LABELS[:2])
    np.testing.assert_allclose(np.exp(rows), [[2 / 3, 1 / 3], [1 / 3, 2 / 3]])
    assert (served.paths[0], served.bodies[0]["prompt"]) == ("/v1/completions", "S\n\nwhich?Answer:")
    assert served.bodies[0]["logprobs"] == 20
    assert judge.can == {"choose", "generate", "likelihood"}
    assert not judge.chats


def echo(words, generated=(" x",)):
    """A vLLM that splits texts by `words` and gives token n the log-probability -n."""

    def answer(body, _):
        tokens = [*words(body["prompt"]), *generated]
        values = [None, *(-float(n) for n in range(1, len(tokens)))]
        return completed(body["prompt"] + "".join(generated), tokens, values, generated=len(generated))

    return answer


def spaced(text):
    return [word if n == 0 else f" {word}" for n, word in enumerate(text.split(" "))]


def test_likelihood_is_the_mean_over_the_targets_tokens(serve):
    served, judge = serve(echo(lambda text: ["<bos>", *spaced(text)]), api="completions")
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

    served, judge = serve(echo(as_bytes), api="completions")
    found = judge.likelihood([Message(("猫",))], ["睡"])
    np.testing.assert_allclose(found, [-(3 + 4 + 5) / 3])
    assert sorted(body["prompt"] for body in served.bodies) == ["猫", "猫睡"]


@pytest.mark.parametrize(
    ("tokens", "target", "mine"),
    [
        (["a", " b", " c"], " b c", 2),
        (["a b", " c"], "b c", 2),
        (["猫", "", "", "睡"], "睡", 3),
        (["猫", "�", "睡"], "睡觉", None),
        ([], "x", None),
    ],
)
def test_the_tail_of_tokens_that_spells_the_target(tokens, target, mine):
    assert tail(tokens, target) == mine


@pytest.mark.parametrize(
    "answer",
    [
        lambda body, _: refused("Only no echo is supported"),
        lambda body, _: completed(" x", [" x"], [-1.0]),
        lambda body, _: completed(" x"),
    ],
)
def test_a_server_that_does_not_echo_has_no_likelihood(serve, answer):
    _, judge = serve(answer, api="completions")
    with pytest.raises(
        InputError, match="needs a completions API that echoes the prompt's log-probabilities"
    ):
        judge.likelihood([ask(chat="never")], ["x"])


def test_what_the_judge_cannot_do_is_refused_before_anything_is_sent(serve):
    served, chat = serve(lambda *_: said("A"))
    with pytest.raises(InputError, match=r"cannot answer `likelihood` questions .* or api=completions"):
        chat.likelihood([ask()], ["x"])
    with pytest.raises(InputError, match="cannot answer `score`"):
        chat.score([ask()])
    with pytest.raises(InputError, match=r"chat=never.*set api=completions"):
        chat.choose([ask(chat="never")], LABELS)
    with pytest.raises(InputError, match="set images=true"):
        chat.choose([Message((Picture(b"..."),), chat="auto")], LABELS)
    plain = open_openai("judge", url=served.url, api="completions")
    with pytest.raises(InputError, match="needs a chat template"):
        plain.choose([ask(chat="always")], LABELS)
    with pytest.raises(InputError, match="a target is empty"):
        plain.likelihood([ask()], [""])
    assert not served.bodies


def test_pictures_are_decoded_bounded_and_sent_in_their_place(serve):
    served, judge = serve(lambda *_: said("A", [{"A": 0.9}]), images=True)
    assert judge.modalities == {"text", "image"}
    red = PIL.Image.new("RGB", (1500, 1000), (255, 0, 0))
    out = io.BytesIO()
    red.save(out, "PNG")
    judge.choose(
        [Message(("A: ", Passage("cats"), Picture(out.getvalue()), "\nB: "), chat="auto", answer="[")], LABELS
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
        judge.choose([Message((Picture(b"GIF89a nothing"),), chat="auto")], LABELS)


def test_passages_are_cut_by_estimate_and_the_query_never(serve):
    served, judge = serve(lambda *_: said("A", [{"A": 0.9}]), passage_tokens=10, context=400)
    judge.choose([Message((Passage("猫" * 50), " the query"), chat="auto")], LABELS)
    assert served.bodies[0]["messages"][0]["content"] == "猫" * 10 + " the query"
    assert judge.usage["cut_passages"] == 1
    text = failure(judge, InputError, [Message((Passage("猫" * 50), "query " * 300), chat="auto")])
    assert "its context is too short for one passage" in text


@pytest.mark.parametrize("text", ["", "plain words", "naïve Ключ", "猫と😀", "half \ud83d surrogate"])
def test_the_estimate_cuts_whole_characters_to_at_most_so_many_tokens(text):
    estimate = Estimate()
    assert estimate.cut(text, estimate.count(text)) == text
    for tokens in range(estimate.count(text)):
        cut = estimate.cut(text, tokens)
        assert estimate.count(cut) <= tokens
        assert text.replace("\ud83d", "").startswith(cut)


def test_lone_surrogates_do_not_break_a_request(serve):
    served, judge = serve(lambda *_: said("A", [{"A": 0.9}]))
    judge.choose([ask("half \ud83d surrogate")], LABELS)
    assert served.bodies[0]["messages"][0]["content"] == "half \ufffd surrogate"


def test_fingerprint_and_revision_name_the_model_and_never_the_key(serve):
    served, judge = serve(
        lambda _, n: said("A", [{"A": 0.9}]) | {"system_fingerprint": f"fp{n // 2}"}, concurrency=1
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
    prints = {open_openai("judge", url=served.url, **each).fingerprint for each in others} | {before}
    assert len(prints) == len(others) + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:8000"}, "url=localhost:8000 is no address; write http://HOST:PORT/v1"),
        ({"url": "ftp://host/v1"}, "is no address"),
        ({"url": "http://"}, "is no address"),
        ({"url": "http://host:99999/v1"}, "is no address"),
        ({"url": "http://me:secret@host/v1"}, "to hold an address only"),
        ({"url": "http://host/v1?api-key=secret"}, "to hold an address only"),
        ({"concurrency": 0}, "concurrency must be at least 1, not 0"),
        ({"retries": -1}, "retries must be at least 0"),
        ({"timeout": float("nan")}, "timeout must be a number of seconds above 0"),
        ({"budget": -5}, "budget must be at least 0"),
        ({"passage_tokens": 0}, "passage_tokens must be at least 1"),
        ({"api": "completions", "images": True}, "pictures go through the chat API only"),
        ({"url": ""}, "set OPENAI_API_KEY, or name your server with"),
    ],
)
def test_options_that_make_no_sense_are_one_line(monkeypatch, options, message):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(InputError) as caught:
        open_openai("judge", **({"url": "http://127.0.0.1:9/v1"} | options))
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_environment_names_the_server_and_holds_the_key(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1/")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert open_openai("judge").server.url == "http://127.0.0.1:9/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "nowhere")
    with pytest.raises(InputError, match="OPENAI_BASE_URL=nowhere is no address"):
        open_openai("judge")
    with pytest.raises(InputError, match="names no model"):
        open_openai("", url="http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-ключ")
    with pytest.raises(InputError, match="OPENAI_API_KEY holds characters that no key has"):
        open_openai("judge", url="http://127.0.0.1:9/v1")


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"pip install 'crosslens\[openai\]'"):
        open_openai("judge", url="http://127.0.0.1:9/v1")
