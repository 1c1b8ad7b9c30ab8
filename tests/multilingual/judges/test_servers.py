"""Many requests at a time, retries, budgets, and every failure as one line without the key."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest
from crosslens.errors import CrosslensError, InputError
from crosslens.multilingual.judges import servers
from crosslens.multilingual.judges.openai import OpenAIJudge
from stand_ins.http_server import KEY, LABELS, ask, chat_reply, error_reply
from stand_ins.table import table


def failure(judge, kind=CrosslensError, prompts=None):
    with pytest.raises(CrosslensError) as caught:
        judge.choose(prompts or [ask()], LABELS)
    assert type(caught.value) is kind
    text = str(caught.value)
    assert "\n" not in text
    assert KEY not in text
    assert "judge" in text
    return text


def test_answers_keep_the_order_and_requests_the_bound(serve):
    def answer(body, number):
        time.sleep(0.05 if number % 3 else 0.12)
        p = float(body["messages"][-1]["content"])
        return chat_reply("A", [{"A": p, "B": 1 - p}])

    served, judge = serve(answer, concurrency=5)
    wanted = np.linspace(0.1, 0.9, 23)
    rows = judge.choose([ask(str(p)) for p in wanted], LABELS[:2])
    np.testing.assert_allclose(np.exp(rows[:, 0]), wanted)
    assert served.most == 5
    assert judge.usage["calls"] == 23
    assert judge.appetite == 20


def test_it_works_inside_a_running_loop(serve):
    _, judge = serve(lambda *_: chat_reply("B", [{"B": 0.6, "A": 0.4}]))

    async def notebook():
        return judge.choose([ask()] * 3, LABELS[:2])

    np.testing.assert_allclose(np.exp(asyncio.run(notebook())), [[0.4, 0.6]] * 3)


def test_ctrl_c_ends_the_requests_under_way(serve):
    served, judge = serve(lambda *_: time.sleep(6) or chat_reply("A", [{"A": 1.0}]))
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


def test_a_server_that_shows_five_tokens_is_asked_for_five(serve, caplog):
    def tgi(body, _):
        if body.get("top_logprobs", 0) > 5:
            return error_reply("Input validation error: `top_n_tokens` must be >= 0 and <= 5. Given: 20", 422)
        return chat_reply("A", [{"A": 0.75, "B": 0.25}])

    served, judge = serve(tgi)
    np.testing.assert_allclose(np.exp(judge.choose([ask()] * 12, LABELS[:2])), [[0.75, 0.25]] * 12)
    assert judge.usage["without_logprobs"] == 0
    assert not caplog.messages
    assert served.bodies[-1]["top_logprobs"] == 5


def test_a_busy_server_is_waited_for_as_long_as_it_says_and_counted(serve):
    times = []

    def busy(_, number):
        times.append(time.monotonic())
        if number == 0:
            return 429, {"error": {"message": "slow down"}}, {"Retry-After": "0.3"}
        return chat_reply("A", [{"A": 0.9}])

    _, judge = serve(busy, retries=2)
    assert judge.choose([ask()], LABELS)[0].argmax() == 0
    assert judge.usage["retries"] == 1
    assert 0.28 < times[1] - times[0] < 2


def test_errors_that_pass_are_retried(serve):
    def flapping(_, number):
        if number % 3 == 0:
            return 500, b"Internal Server Error", {"retry-after-ms": "10"}
        return None if number % 3 == 1 else chat_reply("A", [{"A": 0.9}])

    _, judge = serve(flapping, retries=3, concurrency=1)
    assert judge.choose([ask()], LABELS)[0].argmax() == 0
    assert judge.usage["retries"] == 2


@table(
    ("reply", "kind", "words"),
    [
        (
            error_reply(f"Incorrect API key provided: {KEY}", 401),
            InputError,
            "refuses access (401); set OPENAI_API_KEY",
        ),
        (error_reply(f"no access for {KEY}", 403), InputError, "refuses access (403)"),
        (error_reply("The model `judge` does not exist.", 404), InputError, "is the model's name right"),
        (
            error_reply(
                "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens in logprobs"
            ),
            InputError,
            "set context= to the model's length, or lower passage_tokens=",
        ),
        (error_reply("the request exceeds the available context size"), InputError, "set context="),
        (error_reply(f"bad\nthings\x1b[31m {KEY}"), InputError, "400 bad things [31m ...; look at the options"),
        (error_reply("You exceeded your quota", 429), CrosslensError, "lower concurrency= or raise retries="),
        ((503, b"<html>Bad gateway</html>"), CrosslensError, "fails: 503 <html>Bad gateway</html>; look at the"),
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
    text = failure(OpenAIJudge("judge", url=url, retries=1))
    assert "cannot be reached (tried 2 times)" in text
    assert text.endswith("start the server or correct the url")
    assert "//127" in text


def test_a_server_that_dies_during_the_work_is_one_line(serve):
    served, judge = serve(lambda _, number: chat_reply("A", [{"A": 0.9}]) if number < 6 else None, concurrency=2)
    assert "cannot be reached" in failure(judge, prompts=[ask()] * 30)
    assert judge.usage["calls"] >= 5
    assert len(served.bodies) <= 8


def test_a_slow_server_is_one_line(serve):
    _, judge = serve(lambda *_: time.sleep(6) or chat_reply("A"), timeout=0.1, retries=1)
    began = time.monotonic()
    assert "gave no answer within 0.1 s (tried 2 times); raise timeout=" in failure(judge)
    assert time.monotonic() - began < 5
    assert judge.usage["retries"] == 1


def test_a_server_that_comes_back_is_waited_for_while_it_loads_its_model(serve, monkeypatch, caplog):
    monkeypatch.setattr(servers.asyncio, "sleep", partial(_sleep_less, asyncio.sleep))

    def restarted(_, number):
        return error_reply("Loading model", 503) if 2 < number < 12 else chat_reply("A", [{"A": 0.7, "B": 0.3}])

    _, judge = serve(restarted, retries=1, concurrency=1)
    np.testing.assert_allclose(np.exp(judge.choose([ask()] * 5, LABELS[:2])), [[0.7, 0.3]] * 5)
    assert judge.usage["calls"] == 5
    assert caplog.text.count("it is loading its model, which is waited for") == 1
    monkeypatch.setattr(servers, "LONGEST_START", 0.0)
    _, judge = serve(lambda *_: error_reply("Loading model", 503), retries=0)
    assert "fails: 503 Loading model; look at the server's log" in failure(judge)


async def _sleep_less(sleep, seconds):
    await sleep(seconds / 100)


def test_the_budget_ends_the_work_with_one_line_that_says_how_to_go_on(serve):
    served, judge = serve(lambda *_: chat_reply("A", [{"A": 0.9}], usage=(99, 1)), budget=450, concurrency=1)
    judge.choose([ask()] * 3, LABELS)
    assert "the budget of 450 tokens is spent (500); raise budget=" in failure(judge, prompts=[ask()] * 5)
    assert len(served.bodies) == 5
    assert judge.usage["calls"] == 5


def test_tokens_that_the_server_does_not_count_are_estimated_and_counted_as_such(serve):
    _, judge = serve(lambda *_: chat_reply("A", [{"A": 0.9}], usage=None), budget=50)
    judge.choose([ask("x" * 300)], LABELS)
    assert (judge.usage["prompt_tokens"], judge.usage["tokens_estimated"]) == (100, 1)
    assert "budget" in failure(judge)


def test_parameters_that_a_server_does_not_take_are_left_off_and_said(serve, caplog):
    def strict(body, _):
        for key in ("chat_template_kwargs", "seed"):
            if key in body:
                return error_reply(f"Unrecognized request argument supplied: {key}")
        if "max_tokens" in body:
            return error_reply(
                "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", param="max_tokens"
            )
        if body["temperature"] == 0:
            return error_reply("'temperature' does not support 0 with this model.", param="temperature")
        return chat_reply("fine")

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


@table(
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
        OpenAIJudge("judge", **({"url": "http://127.0.0.1:9/v1"} | options))
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_environment_names_the_server_and_holds_the_key(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1/")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert OpenAIJudge("judge").server.url == "http://127.0.0.1:9/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "nowhere")
    with pytest.raises(InputError, match="OPENAI_BASE_URL=nowhere is no address"):
        OpenAIJudge("judge")
    with pytest.raises(InputError, match="names no model"):
        OpenAIJudge("", url="http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-ключ")
    with pytest.raises(InputError, match="OPENAI_API_KEY holds characters that no key has"):
        OpenAIJudge("judge", url="http://127.0.0.1:9/v1")


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"pip install 'crosslens\[openai\]'"):
        OpenAIJudge("judge", url="http://127.0.0.1:9/v1")
