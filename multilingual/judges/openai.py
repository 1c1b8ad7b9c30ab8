"""`openai:MODEL`: any server that speaks OpenAI's HTTP protocol: vLLM, llama.cpp, SGLang, TGI, hosted ones."""

from __future__ import annotations

import asyncio
import base64
import io
import math
import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import numpy as np

from ...errors import InputError, check_at_least
from ...items import Modality
from .answers import read_label
from .base import Ask, BaseJudge, Completion, Sampling
from .messages import Message, TokenEstimate, cut_passages
from .replies import ServedLabels, count_target_tokens, read_logprobs, split_thought
from .servers import OFFICIAL, A, Q, Server, parse_url
from .tokenized import count_common

THINK, THOUGHT = "<think>", "</think>"
NO_THOUGHT = re.compile(rf"^\s*{THINK}\s*{THOUGHT}\s*")  # how templates say that there is none to be
# Without prefill no assistant turn may be left open, so the user's turn says how the answer begins.
BEGUN = "\n\nYour answer is already begun as follows; reply only with what comes next.\n"

FRAME = 64  # tokens that a chat template puts around the turns
PICTURE = 1400  # tokens of a picture of a million pixels (Qwen-VL's count, the dearest of the common ones)
AHEAD = 8  # tokens in which a label may still begin after "**", "[" or "Passage"
ROOMS = (32, 2048)  # tokens for an answer that is generated: a few words, or a thought before them
SAID = 0.05  # probability that all labels hold together where a chat model says one
SURE = 0.99  # probability of a label that was read from text


class OpenAIJudge(BaseJudge):
    """A judge over HTTP, behind `url` (default: OPENAI_BASE_URL, or OpenAI itself); the key is OPENAI_API_KEY's only.

    At most `concurrency` requests are under way; each waits `timeout` seconds for an answer and is repeated up to
    `retries` times. `budget` ends the work after so many tokens, prompts included (0: none). Passages are cut to
    `passage_tokens`, and further where `context`, the model's length in tokens, is given. `api=completions` sends
    plain text, for base models. `images` says that the model sees pictures, `prefill` that the server continues an
    answer that is begun for it (vLLM, llama.cpp). Nothing is sent before the first question; `device` and
    `trust_remote_code` are the server's matter. `InputError` for what is missing or makes no sense.

    `choose` reads the log-probabilities of the first token that says a label, summed over the ways to write it ("A",
    " A", "A."; words also in other case); a label that is not among the tokens shown gets less than the least of
    them. Where that cannot be (the server gives none, the model thinks or chats first, or one label begins another,
    as 1 does 10), the answer is generated and read; that is said once, and counted as `without_logprobs`. Answers
    that name no label are counted by kind (`refused`, `unreadable`, ...: see `answers`), with equal probabilities. The
    label mass is that of the place that is read, of the tokens shown.

    There is no tokenizer here: tokens are estimated from the script (`TokenEstimate`). How an answer begins
    (`Message.answer`) is sent as an open assistant turn with `prefill`; otherwise the user's turn says it, except
    for an open `<think>`, which asks the server for its thinking mode instead.
    """

    streams = True
    advice: ClassVar = {
        "likelihood": ", or api=completions on a server that echoes log-probabilities",
        "image": "; set images=true if it sees pictures",
    }

    def __init__(
        self,
        checkpoint: str,
        *,
        device: str = "auto",
        trust_remote_code: bool = False,
        url: str = "",
        concurrency: int = 8,
        timeout: float = 60,
        retries: int = 5,
        budget: int = 0,
        passage_tokens: int = 384,
        api: Literal["chat", "completions"] = "chat",
        context: int = 0,
        images: bool = False,
        prefill: bool = False,
        seed: int = 0,
    ) -> None:
        del device, trust_remote_code
        if not checkpoint:
            raise InputError("the judge openai: names no model; write openai:MODEL?url=http://HOST:PORT/v1")
        check_at_least(1, concurrency=concurrency, passage_tokens=passage_tokens)
        check_at_least(0, retries=retries, budget=budget, context=context)
        if not 0 < timeout < math.inf:
            raise InputError(f"timeout must be a number of seconds above 0, not {timeout}")
        source = "url" if url else "OPENAI_BASE_URL"
        where = parse_url(url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL, source)
        self.server = Server(
            checkpoint, where, concurrency=concurrency, timeout=timeout, retries=retries, budget=budget
        )
        if images and api == "completions":
            raise InputError(f"{self.server.name}: pictures go through the chat API only; leave api=completions away")
        super().__init__(self.server.name, "unknown")  # what the server names, while that stays the same
        self.usage = self.server.usage
        self.passage_tokens, self.context, self.seed, self.prefill = passage_tokens, context, seed, prefill
        self.chats = api == "chat"
        self.modalities: frozenset[Modality] = frozenset({"text", "image"} if images else {"text"})
        self.can: frozenset[Ask] = frozenset(
            {"choose", "generate"} if self.chats else {"choose", "generate", "likelihood"}
        )
        self.appetite = 4 * concurrency
        self.estimate = TokenEstimate()
        self._path = "chat/completions" if self.chats else "completions"
        # What the server has shown of itself; it changes how often is asked, not what is read.
        self._blind = ""  # why there are no log-probabilities of labels
        self._ahead = 1
        self._room = ROOMS[0]

    @property
    def fingerprint(self) -> str:
        limits = f"{self.passage_tokens}/{self.context}/{self.seed}/{self.prefill}/{'image' in self.modalities}"
        return f"{urlsplit(self.server.url).netloc}/{self.server.model}/{self._path}/{limits}"

    def compute_choices(self, prompts: Sequence[Message], labels: tuple[str, ...]) -> np.ndarray:
        if len(labels) < 2:
            return np.zeros((len(prompts), len(labels)))
        return np.stack(self._each(partial(self._chosen, labels=ServedLabels(labels)), prompts))

    def compute_likelihoods(self, prompts: Sequence[Message], targets: Sequence[str]) -> np.ndarray:
        if not all(targets):
            raise InputError(f"{self.name}: a target is empty, it has no likelihood")
        return np.array(self._each(self._likely, list(zip(prompts, targets, strict=True))), dtype=np.float64)

    def compute_completions(self, prompts: Sequence[Message], sampling: Sampling) -> list[Completion]:
        """A thought that the server keeps apart comes first, between <think> and </think>."""

        async def write(message: Message) -> Completion:
            return (await self._answer(self._fit(message, sampling.max_new_tokens), sampling))[1]

        return self._each(write, prompts)

    def _each(self, ask: Callable[[Q], Awaitable[A]], questions: Sequence[Q]) -> list[A]:
        answers = self.server.each(ask, questions, self.hand_over)
        self.revision = self.server.revision
        return answers

    async def _chosen(self, message: Message, labels: ServedLabels) -> np.ndarray:
        message = self._fit(message, ROOMS[0])
        row = await self._scored(message, labels)
        row = await self._read(message, labels) if row is None else row
        normalized: np.ndarray = row - np.logaddexp.reduce(row)
        return normalized

    async def _scored(self, message: Message, labels: ServedLabels) -> np.ndarray | None:
        """Log-probabilities of the labels; None, and a warning that says why, where there are none."""
        why = f"one of the labels {', '.join(labels.given)} begins another" if labels.ambiguous else self._blind
        mass: float | None = None  # that of the first place, until a later one says a label
        body = {} if why else await self._worded(message)

        def request() -> dict[str, Any] | None:
            if not (top := self.server.top):
                return None
            shown = {"logprobs": True, "top_logprobs": top} if self.chats else {"logprobs": top}
            return body | shown | {"max_tokens": self._ahead, "temperature": 0, "seed": self.seed}

        while not why:
            ahead = self._ahead
            choice = await self.server.send(self._path, request) or {}
            if choice.get("refused"):
                return labels.even
            text, thought = split_thought(choice)
            positions = read_logprobs(choice)
            if thought:
                self._blind = "the model thinks before it answers"
            elif not choice or (positions is None and text):
                self._blind = "it gives no log-probabilities"
            for row, share in map(labels.score, () if self._blind else positions or ()):
                # Without a template the model has no instruction to obey, and only the labels' odds count.
                mass = share if mass is None else mass
                if share > (SAID if self.chats else 0):
                    self.count_label_mass(message, share)
                    return row
            why = self._blind or ("the model's answer does not begin with a label" if ahead == AHEAD else "")
            self._ahead = AHEAD
        if mass is not None:
            self.count_label_mass(message, mass)
        self.server.warn(f"{why}; answers are generated and read instead")
        return None

    async def _read(self, message: Message, labels: ServedLabels) -> np.ndarray:
        """Log-probabilities of the labels from a generated answer: almost one for the label that it names."""
        self.usage["without_logprobs"] += 1
        longest = min(ROOMS[1], self.context // 4) if self.context else ROOMS[1]
        while True:
            room = min(self._room, longest)
            choice, answer = await self._answer(message, Sampling(room))
            if choice["refused"]:
                return labels.even
            kinds: Counter[str] = Counter()
            place = read_label(answer.text, labels.bare, kinds, after=labels.closing)
            if place is not None or answer.ended or room == longest:
                self.usage.update(kinds)
                if place is None:
                    return labels.even
                row = np.full(len(labels.given), math.log((1 - SURE) / (len(labels.given) - 1)))
                row[place] = math.log(SURE)
                return row
            message = self._fit(message, longest)
            self._room = ROOMS[1]  # cut in a thought or an explanation; the next ones will be as long

    async def _likely(self, question: tuple[Message, str]) -> float:
        message, target = question
        start = replace_surrogates(self._fit(message, self.estimate.count(target)).plain())
        target = replace_surrogates(target)
        tokens, values = await self._echoed(start + target)
        mine = count_target_tokens(tokens, target)
        if mine is None:
            # Tokens that are parts of characters do not spell the text; the prompt's own tokens set it apart.
            before, _ = await self._echoed(start)
            mine = len(tokens) - count_common(before, tokens)
        scored = [value for value in values[len(values) - mine :] if isinstance(value, int | float)]
        if not scored or not np.isfinite(scored).all():
            raise InputError(f"{self.server.here}: the target {target!r} got no log-probabilities")
        return float(np.mean(scored))

    async def _echoed(self, text: str) -> tuple[list[str], list[float | None]]:
        """The tokens of a text and their log-probabilities, the first one's missing."""
        body = {"prompt": text, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
        needs = "likelihood needs a completions API that echoes the prompt's log-probabilities, as vLLM's does"
        choice = await self.server.send("completions", lambda: body, advice=f"{needs}; take another prompt") or {}
        shown = choice.get("logprobs")
        tokens, values = (shown.get("tokens"), shown.get("token_logprobs")) if isinstance(shown, dict) else (None, None)
        generated = int(choice.get("generated", 1))
        if not (isinstance(tokens, list) and isinstance(values, list) and len(tokens) == len(values) > generated + 1):
            raise InputError(f"{self.server.here} does not echo the prompt: {needs}; take another prompt")
        end = len(tokens) - generated
        return [str(token) for token in tokens[:end]], values[:end]

    async def _answer(self, message: Message, sampling: Sampling) -> tuple[dict[str, Any], Completion]:
        seed = self.seed if sampling.seed is None else sampling.seed
        body = await self._worded(message)
        body |= {"max_tokens": sampling.max_new_tokens, "temperature": sampling.temperature, "seed": seed}
        if sampling.stop:
            body["stop"] = list(sampling.stop[:4])  # OpenAI's limit; the text is cut at all of them here
        choice = await self.server.send(self._path, lambda: body)
        assert choice is not None
        text, thought = split_thought(choice)
        if self.prefill and self.chats:
            text = text.removeprefix(replace_surrogates(message.answer))  # llama.cpp says it again
        ended = choice.get("finish_reason") != "length"
        opened = _opens_thought(message)
        if thought:
            text = ("" if opened else THINK) + thought + (THOUGHT if text or ended else "") + text
        elif opened:
            text = text.lstrip().removeprefix(THINK)
        if choice.get("stop_reason") in sampling.stop:  # vLLM's, where the text leaves it off
            text += str(choice["stop_reason"])
        return choice, Completion(text, int(choice["generated"]), ended).cut_at(sampling.stop)

    async def _worded(self, message: Message) -> dict[str, Any]:
        """The body of a request, but for its sampling."""
        if not self.chats:
            return {"prompt": replace_surrogates(message.plain())}
        if message.attachments:
            return await asyncio.to_thread(self._turns, message)  # decoding takes a while, and others wait
        return self._turns(message)

    def _turns(self, message: Message) -> dict[str, Any]:
        shown = message.join_texts(replace_surrogates)
        body: dict[str, Any] = {}
        answer, thinking = replace_surrogates(message.answer), _opens_thought(message)
        if answer and self.prefill:
            body |= {"continue_final_message": True, "add_generation_prompt": False}
            thinking = answer.lstrip().startswith(THINK)  # else templates put an empty thought before ours
        elif not thinking and (begun := NO_THOUGHT.sub("", answer)):
            shown.append(BEGUN + begun)
        if self.server.url != OFFICIAL:
            # Templates of hybrid models (Qwen3) think unless they are asked not to, and a label would not come first.
            body["chat_template_kwargs"] = {"enable_thinking": thinking}
        user: Any = "".join(part for part in shown if isinstance(part, str))
        if message.attachments:
            user = [
                {"type": "text", "text": part}
                if isinstance(part, str)
                else {"type": "image_url", "image_url": {"url": to_data_url(part.content)}}
                for part in shown
            ]
        turns = [{"role": "system", "content": replace_surrogates(message.system)}] if message.system else []
        turns.append({"role": "user", "content": user})
        if answer and self.prefill:
            turns.append({"role": "assistant", "content": answer})
        return body | {"messages": turns}

    def _fit(self, message: Message, reserve: int) -> Message:
        if self.chats and message.chat == "never":
            raise InputError(
                f"{self.name}: the chat API always puts a template around a prompt that wants none (chat=never); "
                f"set api=completions, or chat=auto"
            )
        if not self.chats and message.chat == "always":
            raise InputError(f"{self.name}: the prompt needs a chat template; leave api=completions away")
        room = (self.context or 1 << 40) - reserve - FRAME - len(message.attachments) * PICTURE
        message, cut = cut_passages(
            message, self.estimate, passage_tokens=self.passage_tokens, room=room, name=self.name
        )
        self.usage["cut_passages"] += cut
        return message


def _opens_thought(message: Message) -> bool:
    """Whether the model is to think first: its answer opens a thought and does not close it."""
    return message.answer.lstrip().startswith(THINK) and THOUGHT not in message.answer


def to_data_url(image: Any) -> str:
    """A picture as a JPEG in a `data:` URL, decoded and bounded by `media.images`."""
    from ...media.images import open_image

    out = io.BytesIO()
    open_image(image).save(out, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def replace_surrogates(text: str) -> str:
    """The text without lone surrogates, which no UTF-8 can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
