"""A model behind an HTTP server that speaks OpenAI's protocol: sending, retrying, counting, and errors in one line."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import threading
import time
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ...errors import CrosslensError, InputError
from .messages import TokenEstimate
from .replies import split_thought

OFFICIAL = "https://api.openai.com/v1"
TOPS = (20, 5, 0)  # next tokens whose log-probabilities are asked for: as many as the server allows
# vLLM, llama.cpp, TGI, OpenAI, SGLang: each words it in its own way.
CONTEXT = re.compile(
    r"context.{0,20}(length|size|window)|context_length|maximum.{0,20}length|max_new_tokens`? must be|"
    r"(prompt|input).{0,20}too long|too many tokens",
    re.I | re.S,
)
ADVICE = "look at the options in the SPEC"
LOADING = re.compile(r"loading model", re.I)  # llama.cpp, after a start: it answers so until it can
LONGEST_START = 600.0  # seconds for which that is waited for

Q = TypeVar("Q")
A = TypeVar("A")
log = logging.getLogger("crosslens")


class Server:
    """One model on one server: sends requests side by side, learns what it takes, counts, words errors in one line.

    All requests of a judge run in one event loop in a thread of its own, so that callers may have a running loop
    (Jupyter), connections live on between calls, and Ctrl-C ends the requests under way.
    """

    def __init__(self, model: str, url: str, *, concurrency: int, timeout: float, retries: int, budget: int) -> None:
        self.model, self.url = model, url
        self.name = f"openai:{model}"
        self.here = f"{self.name} at {url}"
        self.concurrency, self.timeout, self.retries, self.budget = concurrency, timeout, retries, budget
        self.usage: Counter[str] = Counter()
        self._revisions: set[str] = set()
        self.top = TOPS[0]
        self._names: dict[str, str] = {}  # of parameters that it takes under another name, or not at all
        self._warned: set[str] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        try:
            import openai
        except ImportError:
            raise InputError("openai: judges need the package openai; pip install 'crosslens[openai]'") from None
        self._openai: Any = openai
        self._key = _read_key(url)

    @property
    def revision(self) -> str:
        """The model and fingerprint that the server names; `unknown` before it answers, and if it names several."""
        return next(iter(self._revisions)) if len(self._revisions) == 1 else "unknown"

    def each(self, ask: Callable[[Q], Awaitable[A]], questions: Sequence[Q], take: Callable[[int, A], None]) -> list[A]:
        """The answers in the questions' order, at most `concurrency` at a time; the first error ends the others.

        `take` gets each answer as it comes, and the position of its question, in the thread of the caller.
        """
        answers: dict[int, A] = {}
        done: SimpleQueue[int | None] = SimpleQueue()  # the position of each answer, None at the end

        async def work(places: Any) -> None:
            for place in places:  # shared: each worker takes the next one
                answers[place] = await ask(questions[place])
                done.put(place)

        async def all_of_them() -> None:
            places = iter(range(len(questions)))
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.concurrency, len(questions))):
                        group.create_task(work(places))
            except BaseExceptionGroup as failed:
                raise failed.exceptions[0] from None  # those of the others are as good

        future = asyncio.run_coroutine_threadsafe(all_of_them(), self._running())
        future.add_done_callback(lambda _: done.put(None))
        try:
            while (place := done.get()) is not None:
                take(place, answers[place])
            future.result()
        except BaseException:
            future.cancel()
            raise
        return [answers[place] for place in range(len(questions))]

    async def send(
        self, path: str, body: Callable[[], dict[str, Any] | None], *, advice: str = ADVICE
    ) -> dict[str, Any] | None:
        """The first choice of the answer, with `generated`, its tokens, and `refused`; None where `body` gives up.

        `body` is called again when the server has refused a parameter and something was learnt from it. A server that
        says that it is still loading its model is waited for.
        """
        began = time.monotonic()
        while True:
            wanted = body()
            if wanted is None:
                return None
            spent = self.usage["prompt_tokens"] + self.usage["generated_tokens"]
            if self.budget and spent >= self.budget:
                raise CrosslensError(
                    f"{self.name}: the budget of {self.budget:,} tokens is spent ({spent:,}); "
                    f"raise budget= in the SPEC to go on (0: no limit)"
                )
            sent = {name: value for key, value in wanted.items() if (name := self._names.get(key, key))}
            chat = path.startswith("chat")
            api = self._client.chat.completions if chat else self._client.completions
            key = "messages" if chat else "prompt"
            try:
                asked = {key: sent.pop(key), "extra_body": sent}
                raw = await api.with_raw_response.create(model=self.model, **asked)
            except self._openai.OpenAIError as error:
                if self._learn_from(error, sent):
                    continue
                if LOADING.search(_reason(error)) and time.monotonic() - began < LONGEST_START:
                    self.warn("it is loading its model, which is waited for")
                    await asyncio.sleep(1)
                    continue
                raise self._word_error(error, advice) from None
            return self._read_choice(raw.http_response, wanted)

    def _read_choice(self, raw: Any, wanted: dict[str, Any]) -> dict[str, Any]:
        try:
            data = raw.json()
            choice = data["choices"][0]
            message = choice.get("message", {})
            refused = bool(message.get("refusal")) or choice.get("finish_reason") == "content_filter"
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            # Gateways answer 200 with an error inside, or with a page of their own.
            quoted = self._cleaned(raw.text)
            raise CrosslensError(
                f"{self.here} answered with something else than the OpenAI protocol ({quoted}); is the url right?"
            ) from None
        named = [data.get("model") or self.model, data.get("system_fingerprint")]
        self._revisions.add("/".join(str(each) for each in named if each))
        prompt, generated = self._counted(data.get("usage"), choice, wanted)
        self.usage["prompt_tokens"] += prompt
        self.usage["generated_tokens"] += generated
        if refused:
            self.usage["refused"] += 1
        return choice | {"generated": generated, "refused": refused}

    def _counted(self, usage: Any, choice: dict[str, Any], wanted: dict[str, Any]) -> tuple[int, int]:
        """Tokens of prompt and answer, as the server counts them; estimated, and counted as such, if it does not."""
        if isinstance(usage, dict):
            prompt, generated = usage.get("prompt_tokens"), usage.get("completion_tokens")
            if isinstance(prompt, int) and isinstance(generated, int):
                return prompt, generated
        self.usage["tokens_estimated"] += 1
        contents = [turn["content"] for turn in wanted.get("messages") or [{"content": wanted["prompt"]}]]
        parts = [part for each in contents for part in (each if isinstance(each, list) else [{"text": each}])]
        count = TokenEstimate().count
        return sum(count(part.get("text", "")) for part in parts), count("".join(split_thought(choice)))

    def _learn_from(self, error: Any, sent: dict[str, Any]) -> bool:
        """Whether the refusal names a parameter that can be left off or given otherwise."""
        text = _reason(error)
        if getattr(error, "status_code", 0) not in (400, 403, 422, 501) or CONTEXT.search(text):
            return False
        asked = sent.get("top_logprobs", sent.get("logprobs"))
        if re.search("log_?probs|top_n_tokens", text, re.I) and asked in TOPS[:2]:
            self.top = min(self.top, TOPS[TOPS.index(asked) + 1])
            return True
        if "max_completion_tokens" in text and "max_tokens" in sent:
            self._names["max_tokens"] = "max_completion_tokens"
            return True
        for key in ("temperature", "seed", "stop", "chat_template_kwargs"):
            if key in sent and (error.param == key or re.search(rf"\b{key}\b", text)):
                self._names[key] = ""
                self.warn(f"it does not take {key}, which is left off")
                return True
        return False

    def warn(self, what: str) -> None:
        """Say something of the server once."""
        if what not in self._warned:
            self._warned.add(what)
            log.warning("%s: %s", self.here, what)

    def _word_error(self, error: Exception, advice: str) -> CrosslensError:
        tried = f" (tried {self.retries + 1} times)" if self.retries else ""
        if isinstance(error, self._openai.APITimeoutError):
            return CrosslensError(
                f"{self.here} gave no answer within {self.timeout:g} s{tried}; raise timeout= or lower concurrency="
            )
        status = getattr(error, "status_code", 0)
        reason = self._cleaned(_reason(error))
        if not status:
            return CrosslensError(
                f"{self.here} cannot be reached{tried}: {reason}; start the server or correct the url"
            )
        if status in (401, 403):  # servers quote parts of the key: nothing of theirs is repeated
            return InputError(f"{self.here} refuses access ({status}); set OPENAI_API_KEY to a key for this model")
        refusal = f"{self.here} refuses: {status} {reason}"
        if CONTEXT.search(reason):
            advice = "set context= to the model's length, or lower passage_tokens="
        elif status == 404:
            advice = "is the model's name right, and does the url end as it should, as in /v1?"
        elif "echo" in reason and advice != ADVICE:  # llama.cpp fails instead of refusing
            return InputError(f"{refusal}; {advice}")
        elif status == 429:
            return CrosslensError(f"{refusal}{tried}; lower concurrency= or raise retries=")
        elif status >= 500 or status in (408, 409):
            return CrosslensError(f"{self.here} fails: {status} {reason}{tried}; look at the server's log")
        return InputError(f"{refusal}; {advice}")

    def _cleaned(self, text: str) -> str:
        """A server's words as part of one line, short, and without the key."""
        if len(self._key) > 4:  # shorter ones, like "none", are no secrets but words
            text = text.replace(self._key, "...")
        line = "".join(each if each.isprintable() else " " for each in " ".join(text[:10_000].split()))
        return line[:200].strip() or "no reason given"

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            # Not alive: not yet started, or in a process forked since.
            if self._thread is None or not self._thread.is_alive():
                usage = self.usage

                async def count(request: Any) -> None:
                    if request.headers.get("x-stainless-retry-count", "0") != "0":
                        usage["retries"] += 1

                self._client = self._openai.AsyncOpenAI(
                    api_key=self._key or "none",
                    base_url=self.url,
                    timeout=self.timeout,
                    max_retries=self.retries,
                    http_client=self._openai.DefaultAsyncHttpxClient(event_hooks={"request": [count]}),
                )
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_spin, args=(self._loop, self._client), name=self.name, daemon=True
                )
                self._thread.start()
                weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)
        return self._loop


def _spin(loop: asyncio.AbstractEventLoop, client: Any) -> None:
    loop.run_forever()
    loop.run_until_complete(client.close())
    loop.close()


def _read_key(url: str) -> str:
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key.isascii() or not key.isprintable():
        raise InputError("OPENAI_API_KEY holds characters that no key has; copy it again")
    if not key and url == OFFICIAL:
        raise InputError(
            f"openai: judges ask {OFFICIAL} by default; set OPENAI_API_KEY, or name your server with "
            f"?url=http://HOST:PORT/v1"
        )
    return key


def parse_url(url: str, source: str) -> str:
    """The address without a last slash; `InputError` naming its source if it is none, or holds more than one."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or any(each.isspace() for each in url):
        raise InputError(f"{source}={url.partition('@')[2] or url} is no address; write http://HOST:PORT/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise InputError(f"{source} is to hold an address only, http://HOST:PORT/v1; keys come from OPENAI_API_KEY")
    return url.rstrip("/")


def _reason(error: Exception) -> str:
    """What the server said, or why it was not reached."""
    body = getattr(error, "body", None)
    if isinstance(body, dict):
        for key in ("message", "detail", "error"):
            if body.get(key):
                return body[key] if isinstance(body[key], str) else json.dumps(body[key])
    if not hasattr(error, "status_code"):
        return str(error.__cause__ or error)
    return str(body or "") or str(error)
