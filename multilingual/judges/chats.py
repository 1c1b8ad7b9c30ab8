"""Chat templates around messages, as the judges that run in this process apply them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ...errors import InputError
from ..messages import Message

Content = str | Sequence[dict[str, object]]  # text, or parts of text and pictures as processors take them


class Chats(Protocol):
    """What of a judge decides on its chat template."""

    name: str
    chats: bool


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
