"""Chat templates around messages, as the judges that run in this process apply them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ...errors import InputError
from .messages import Message, fitted
from .tokens import Tokens

Content = str | Sequence[dict[str, object]]  # text, or parts of text and pictures as processors take them


class Chats(Protocol):
    """What of a judge decides on its chat template."""

    name: str
    chats: bool


class Reads(Chats, Protocol):
    """What of a judge decides how much of a message it reads."""

    tokenizer: Any
    tokens: Tokens
    passage_tokens: int
    context: int
    usage: Counter[str]


def templated(judge: Chats, message: Message) -> bool:
    """Whether the judge's chat template goes around the message; `InputError` if it must and there is none."""
    if message.chat == "always" and not judge.chats:
        raise InputError(
            f"{judge.name} has no chat template, and the prompt needs one; set chat=never to do without"
        )
    return judge.chats and message.chat != "never"


def rendered(
    templates: Any,
    message: Message,
    user: Content,
    name: str,
    text: Callable[[str], Content] = lambda text: text,
) -> str:
    """The template of `templates` (a tokenizer or processor) around the user's turn, up to where the answer begins.

    `text` makes of a text what the template takes as a turn. `InputError` if it does not take a user's turn alone.
    """
    turns = [{"role": "user", "content": user}]
    if message.system:
        turns.insert(0, {"role": "system", "content": text(message.system)})
    options = {"tokenize": False, "add_generation_prompt": True}
    # Templates of hybrid models close an empty thought where none is wanted. (Processors warn of what is not used.)
    if "enable_thinking" in str(templates.chat_template):
        options["enable_thinking"] = message.answer.startswith("<think>")
    import jinja2

    try:
        return str(templates.apply_chat_template(turns, **options))
    except jinja2.TemplateError:
        if not message.system:
            raise InputError(f"{name}: its chat template does not take a user's turn alone") from None
        # Some templates know no system turn: what it says opens the user's.
        opening = text(f"{message.system}\n\n")
        joined = f"{opening}{user}" if isinstance(user, str) else [*opening, *user]
        return str(templates.apply_chat_template([{"role": "user", "content": joined}], **options))


def fit(judge: Reads, message: Message, room: int) -> Message:
    """The message with its passages cut until it has at most `room` tokens; cut ones are counted."""
    whole, cut = fitted(
        message, judge.tokens, passage_tokens=judge.passage_tokens, room=room, name=judge.name
    )
    judge.usage["cut_passages"] += cut
    return whole


def texts(judge: Reads, messages: Sequence[Message], reserve: int) -> list[str]:
    """Each message as one text, in the chat template where it wants one, cut so that `reserve` tokens more fit."""
    read = []
    for message in messages:
        chats = templated(judge, message)
        frame = judge.tokens.count(rendered(judge.tokenizer, message, "", judge.name)) if chats else 1
        whole = fit(judge, message, judge.context - reserve - frame)
        if chats:
            read.append(rendered(judge.tokenizer, whole, whole.user(), judge.name) + whole.answer)
        else:
            read.append(whole.plain())
    return read


def token_ids(judge: Reads, texts: Sequence[str], messages: Sequence[Message]) -> list[tuple[int, ...]]:
    """The tokens of messages that `texts` made; `InputError` for one that the context is too short for."""
    if not texts:
        return []
    bos = judge.tokenizer.bos_token_id
    ids = judge.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    # Chat templates bring the BOS. Elsewhere some checkpoints' tokenizers do not add the one that the model was
    # trained with; Gemma needs it.
    rows = [
        tuple(row) if bos is None or row[:1] == [bos] or templated(judge, message) else (bos, *row)
        for row, message in zip(ids, messages, strict=True)
    ]
    check_length(judge, max(map(len, rows)))
    return rows


def check_length(judge: Reads, tokens: int, more: str = "") -> None:
    """`InputError` where a prompt of so many tokens does not fit."""
    if tokens > judge.context:
        raise InputError(
            f"{judge.name}: a prompt of {tokens} tokens exceeds the context of {judge.context}; shorten the query or "
            f"the instruction{more}"
        )


def target_begins(start: Sequence[int], whole: Sequence[int], name: str, target: str) -> int:
    """Where the target's tokens begin in `whole`, those of prompt and target; `InputError` if it has none.

    Where both merge into one token, that token is the target's.
    """
    both = zip(start, whole, strict=False)
    begins = next((n for n, (one, other) in enumerate(both) if one != other), len(start))
    if begins >= len(whole):
        raise InputError(f"{name}: the target {target!r} has no tokens")
    return begins
