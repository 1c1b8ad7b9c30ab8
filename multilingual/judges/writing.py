"""Text written by a causal model: many answers at a time, and a row that ends makes place for the next."""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ...checkpoints.devices import is_out_of_memory
from ...encoders.batching import plan_batches
from ...encoders.pooling import Side, collate
from ...errors import InputError
from ...items import group_positions
from .base import Completion, Sampling
from .prefixes import SHORTEST, count_positions, group_prefixes
from .sampling import draw_tokens

if TYPE_CHECKING:
    from .local import TextGenerator

ROOM = 1 << 30  # bytes of keys and values on a CPU, and at least on an accelerator
SLOTS = (64, 512)  # answers at a time, on a CPU and on an accelerator: with more, steps only take longer
TURN = 8  # rows are put together anew once one in so many has ended: that copies all keys and values
# Settings of `generation_config` that do not change what is written here: sizes, ends, reports, and how to sample.
INERT = frozenset(
    {
        *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "transformers_version"),
        *("do_sample", "temperature", "top_p", "top_k", "max_length", "max_new_tokens", "repetition_penalty"),
        *("use_cache", "output_attentions", "output_hidden_states", "return_dict_in_generate"),
    }
)
log = logging.getLogger("crosslens")


def is_plain(model: Any) -> bool:
    """Whether a model remembers by keys and values alone, and its checkpoint asks for nothing special of `generate`."""
    config = model.config.get_text_config(decoder=True)
    layers = DynamicCache(config=model.config).layers
    chunked = "chunked_attention" in (getattr(config, "layer_types", None) or ())
    known = not chunked and all(type(each) in (DynamicLayer, DynamicSlidingWindowLayer) for each in layers)
    settings = getattr(model, "generation_config", None)
    changed = () if settings is None else settings.to_diff_dict()
    return known and all(key in INERT or key.startswith("_") for key in changed)


@dataclass(eq=False)
class Answering:
    """An answer in the making: `key` decides what is drawn for it, `said` are its tokens so far."""

    place: int
    prompt: tuple[int, ...]
    key: int
    said: list[int] = field(default_factory=list)
    ended: bool = False

    @property
    def held(self) -> int:
        """How many of its tokens have keys and values; the last one has yet to be read."""
        return len(self.prompt) - 1 + len(self.said)

    @property
    def latest(self) -> int:
        return self.said[-1] if self.said else self.prompt[-1]


class RoomyLayer(DynamicLayer):
    """Keys and values [n, heads, columns, dim] of a layer, with room for columns to come: nothing is copied to grow.

    Those of the next tokens go to `column`, which whoever runs the model moves on.
    """

    column = 0

    def fill(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.keys, self.values, self.is_initialized = keys, values, True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        end = self.column + key_states.shape[-2]
        self.keys[:, :, self.column : end] = key_states
        self.values[:, :, self.column : end] = value_states
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        return self.column


class CausalWriter:
    """Writes answers with a causal model, greedily as its `generate` does, or drawn for each row by itself.

    As many rows are written at a time as `room` bytes of keys and values and `slots` allow, the longest first. Equal
    prompts are read once, and so are beginnings of at least `shortest` tokens that several share. Rows stand with their
    last tokens in the same column; those that ended leave, and waiting ones take their places. Where memory runs out,
    the rows in work begin anew, half as many at a time. `InputError` names a prompt that does not fit alone.
    """

    def __init__(self, generator: TextGenerator, cache: str, device: torch.device, shortest: int = SHORTEST) -> None:
        self.generator, self.model, self.device = generator, generator.model, device
        self.shortest = shortest
        self.slots = SLOTS[device.type != "cpu"]
        self.cache = cache  # of the argument
        self.penalty = getattr(getattr(self.model, "generation_config", None), "repetition_penalty", None) or 1.0

    @property
    def room(self) -> int:
        """Bytes of keys and values: half of what is free on a CUDA device."""
        return max(ROOM, torch.cuda.mem_get_info(self.device)[0] // 2) if self.device.type == "cuda" else ROOM

    @cached_property
    def shapes(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The keys and values of one token in each layer."""
        cache = DynamicCache()
        with torch.inference_mode():
            token = torch.zeros(1, 1, dtype=torch.long, device=self.device)
            self.model.base_model(input_ids=token, use_cache=True, **{self.cache: cache})
        return [(layer.keys, layer.values) for layer in cache.layers]

    def write(
        self, prompts: Sequence[tuple[int, ...]], keys: Sequence[int], sampling: Sampling, budget: int
    ) -> Iterator[tuple[int, Completion]]:
        """As rows end: a prompt's position, and its answer; at most `budget` tokens of prompts are read at once."""
        order = sorted(range(len(prompts)), key=lambda place: (-len(prompts[place]), prompts[place]))
        waiting = deque(Answering(place, prompts[place], keys[place]) for place in order)
        columns = self.room // sum(part.nbytes for layer in self.shapes for part in layer)
        batch = WritingBatch(self, sampling)
        slots = self.slots
        while waiting or batch.rows:
            try:
                if batch.count_ended() * TURN >= len(batch.rows):
                    kept = [n for n, row in enumerate(batch.rows) if not row.ended]
                    new: list[Answering] = []
                    while waiting and len(kept) + len(new) < slots:
                        rows = [*(batch.rows[n] for n in kept), *new, waiting[0]]
                        if len(rows) > 1 and len(rows) * sum(batch.measure(rows)) > columns:
                            break
                        new.append(waiting.popleft())
                    batch.turn(kept, new, budget)
                ended = batch.step() if batch.rows else []
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                rows = [row for row in batch.rows if not row.ended]
                batch = WritingBatch(self, sampling)
                if len(rows) == 1:
                    raise InputError(
                        f"prompt {rows[0].place} alone does not fit into memory; shorten it, or lower max_new_tokens"
                    ) from None
                slots, budget = max(1, len(rows) // 2), max(1, budget // 2)
                waiting.extendleft(Answering(row.place, row.prompt, row.key) for row in reversed(rows))
                log.warning("out of memory with %d answers at a time: going on with %d", len(rows), slots)
                continue
            for row in ended:
                answer = self.generator.read(row.said, sampling.stop)
                self.generator.usage["generated_tokens"] += answer.tokens
                yield row.place, answer


class WritingBatch:
    """The rows that are in work, and their keys and values."""

    def __init__(self, writer: CausalWriter, sampling: Sampling) -> None:
        self.writer, self.sampling = writer, sampling
        self.rows: list[Answering] = []
        self.layers: list[RoomyLayer] = []
        self.column = 0  # of the tokens that are read next
        self.met = torch.empty(0)  # bool [n, vocabulary]: which tokens a row holds, for a penalty on repeating them

    def count_ended(self) -> int:
        return sum(row.ended for row in self.rows)

    def measure(self, rows: Sequence[Answering]) -> tuple[int, int]:
        """The columns that rows hold, and that they may yet need."""
        most = self.sampling.max_new_tokens
        return max(row.held for row in rows), most - min(len(row.said) for row in rows)

    def turn(self, kept: Sequence[int], new: Sequence[Answering], budget: int) -> None:
        """Go on with the rows that are `kept`, and with `new` ones, whose prompts are read."""
        old, before = self.layers, self.column
        wide = max((self.rows[n].held for n in kept), default=0)
        self.rows, self.layers = [*(self.rows[n] for n in kept), *new], []
        if not self.rows:
            return
        self.column, more = self.measure(self.rows)
        places = torch.tensor(kept, dtype=torch.long, device=self.writer.device)
        with torch.inference_mode():
            for number, shapes in enumerate(self.writer.shapes):
                made = []
                for name, shape in zip(("keys", "values"), shapes, strict=True):
                    # Zeros: what padding holds counts nothing, but it must be finite.
                    whole = shape.new_zeros(len(self.rows), shape.shape[1], self.column + more, shape.shape[3])
                    if kept:
                        part = getattr(old[number], name)[places, :, before - wide : before]
                        whole[: len(kept), :, self.column - wide : self.column] = part
                    made.append(whole)
                self.layers.append(RoomyLayer())
                self.layers[-1].fill(*made)
                self.layers[-1].column = self.column
                if kept:
                    old[number].reset()  # its memory is given back at once
            self._read_prompts(new, len(kept), budget)
            if self.writer.penalty != 1:
                size = self.writer.model.get_output_embeddings().weight.shape[0]
                self.met = torch.zeros(len(self.rows), size, dtype=torch.bool, device=self.writer.device)
                for n, row in enumerate(self.rows):
                    self.met[n, [*row.prompt, *row.said]] = True

    def _read_prompts(self, new: Sequence[Answering], first: int, budget: int) -> None:
        """Compute the keys and values of prompts without their last tokens, in the rows from `first` on."""
        places = group_positions(row.prompt[:-1] for row in new)
        self.writer.generator.usage["prompt_tokens"] += len(places)  # the last ones, read in a step
        prompts = [each for each in places if each]
        targets = [[first + n for n in places[each]] for each in prompts]
        groups = group_prefixes(prompts, self.writer.shortest)
        for some in group_positions(length > 0 for length, _ in groups).values():
            costs = [groups[n][0] or len(prompts[groups[n][1][0]]) for n in some]
            for part in plan_batches(costs, budget):
                self._read_groups([groups[some[n]] for n in part], prompts, targets, budget)

    def _read_groups(
        self,
        groups: Sequence[tuple[int, Sequence[int]]],
        prompts: Sequence[tuple[int, ...]],
        targets: Sequence[Sequence[int]],
        budget: int,
    ) -> None:
        """The groups' prefixes once, all of them of some length or none, then the rest of each of their prompts."""
        cache, width = DynamicCache(), max(length for length, _ in groups)
        mask = torch.empty(len(groups), 0, dtype=torch.long, device=self.writer.device)
        if width:
            mask = self._read([prompts[numbers[0]][:length] for length, numbers in groups], mask, cache, "left")
        members = [(place, n) for place, (_, numbers) in enumerate(groups) for n in numbers]
        rests = [prompts[n][groups[place][0] :] for place, n in members]
        chunks = list(plan_batches([len(rest) for rest in rests], budget))
        for chunk in chunks:
            some = [members[each] for each in chunk]
            rows = torch.tensor([place for place, _ in some], device=self.writer.device)
            # All columns, whatever a layer looks back to, so that each row's own can be taken from them.
            given = cache if chunk is chunks[-1] else copy.deepcopy(cache)
            if width:
                given.batch_select_indices(rows)
            # On the right, so that no padding stands within a row.
            if any(rests[each] for each in chunk):
                self._read([rests[each] for each in chunk], mask[rows], given, "right")
            for n, (place, number) in enumerate(some):
                begins, ends = width - groups[place][0], width + len(rests[chunk[n]])
                for target, layer in zip(self.layers, given.layers, strict=True):
                    held = slice(self.column - (ends - begins), self.column)
                    for row in targets[number]:
                        target.keys[row, :, held] = layer.keys[n, :, begins:ends]
                        target.values[row, :, held] = layer.values[n, :, begins:ends]

    def _read(
        self, tokens: Sequence[Sequence[int]], before: torch.Tensor, cache: DynamicCache, side: Side
    ) -> torch.Tensor:
        """Compute the keys and values of padded rows after those that are masked `before`; the mask of both."""
        writer = self.writer
        inputs = collate(tokens, fill=writer.generator.pad, side=side, device=writer.device)
        mask = torch.cat([before, inputs["attention_mask"]], dim=1)
        writer.model.base_model(
            input_ids=inputs["input_ids"],
            attention_mask=mask,
            position_ids=count_positions(mask)[:, before.shape[1] :],
            use_cache=True,
            **{writer.cache: cache},
        )
        writer.generator.usage["prompt_tokens"] += int(inputs["attention_mask"].sum())
        return mask

    def step(self) -> list[Answering]:
        """One more token for each row; the rows that end with it."""
        writer, sampling = self.writer, self.sampling
        lengths = torch.tensor([row.held for row in self.rows], device=writer.device)
        columns = torch.arange(self.column + 1, device=writer.device)
        with torch.inference_mode():
            out = writer.model(
                input_ids=torch.tensor([[row.latest] for row in self.rows], device=writer.device),
                attention_mask=(columns >= self.column - lengths[:, None]).long(),
                position_ids=lengths[:, None],
                use_cache=True,
                **{writer.cache: Cache(layers=list(self.layers))},
            )
            tokens = self._choose(out.logits[:, -1].float()).tolist()
        self.column += 1
        for layer in self.layers:
            layer.column = self.column
        ended = []
        for row, token in zip(self.rows, tokens, strict=True):
            if row.ended:
                continue
            row.said.append(token)
            last = token in writer.generator.ends or len(row.said) == sampling.max_new_tokens
            row.ended = last or self._is_stopped(row)
            ended += [row] if row.ended else []
        return ended

    def _choose(self, logits: torch.Tensor) -> torch.Tensor:
        """The next token of each row, of float32 logits [n, vocabulary]."""
        if self.writer.penalty != 1:  # Keskar et al. 2019, CTRL
            fallen = torch.where(logits < 0, logits * self.writer.penalty, logits / self.writer.penalty)
            logits = torch.where(self.met, fallen, logits)
        if self.sampling.temperature > 0:
            keys = torch.tensor([row.key for row in self.rows], device=logits.device)
            steps = torch.tensor([len(row.said) for row in self.rows], device=logits.device)
            chosen = draw_tokens(logits, self.sampling.temperature, keys, steps)
        else:
            chosen = logits.argmax(-1)
        if self.writer.penalty != 1:
            self.met[range(len(self.rows)), chosen] = True
        return chosen

    def _is_stopped(self, row: Answering) -> bool:
        if not self.sampling.stop:
            return False
        text = self.writer.generator.tokenizer.decode(row.said)
        return any(each in text for each in self.sampling.stop)
