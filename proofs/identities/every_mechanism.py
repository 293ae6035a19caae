"""Statements about every form of every mechanism."""

from __future__ import annotations

import gc
import math
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np

import minigrad as mg
from minigrad import namespace
from minigrad.pytree import map_arrays
from models.forms import mechanisms
from models.recurrent import lstm
from proofs.checker.counting import counted
from proofs.checker.evaluate import flatten
from proofs.checker.forms import Form, Tokens, each_form, each_pair, select_state, stack_results
from proofs.checker.statements import Instance, grows, identity
from proofs.checker.strategies import ChunkSize, Cut

CHAPTER = 1

CONTRACT = "minigrad, the contract of a form"
TRIANGLE = "talk-mamba, slide 13"
MEMORY = "talk-papers, Self-Attention Does Not Need O(n^2) Memory"


@identity(
    "All forms of a mechanism give the same outputs and the same final state",
    source="minigrad, the papers each mechanism names",
    exact=True,
    over=each_pair(),
)
def forms_agree(form: Form, plainest: Form, tokens: Tokens, state: Any, chunk_size: ChunkSize):
    return form(tokens, state, chunk_size), plainest(tokens, state, chunk_size)


@identity(
    "Streaming: a sequence may be split at any time and continued from the returned state",
    source=f"{CONTRACT}; talk-titans, 12:17",
    exact=True,
    over=each_form(),
)
def streaming(form: Form, tokens: Tokens, state: Any, cut: Cut, chunk_size: ChunkSize):
    before, middle = form(form.slice_time(tokens, None, cut), state, chunk_size)
    after, end = form(form.slice_time(tokens, cut, None), middle, chunk_size)
    return form(tokens, state, chunk_size), (namespace(before).concat([before, after], axis=-2), end)


@identity(
    "Causality: outputs do not depend on later tokens",
    source=f"{CONTRACT}; talk-titans, 1:00:59",
    exact=True,
    over=each_form("others"),
)
def causality(form: Form, tokens: Tokens, others: Tokens, state: Any, cut: Cut, chunk_size: ChunkSize):
    y, _ = form(tokens, state, chunk_size)
    mixed = form.concatenate(form.slice_time(tokens, None, cut), form.slice_time(others, cut, None))
    changed, _ = form(mixed, state, chunk_size)
    return y[..., :cut, :], changed[..., :cut, :]


@identity(
    "Sequences and heads of a batch are computed independently; a batch of one is the unbatched call",
    source=CONTRACT,
    exact=True,
    over=each_form(),
)
def independence(form: Form, tokens: Tokens, state: Any, chunk_size: ChunkSize):
    def one_by_one(tokens: Tokens, state: Any) -> Any:
        if not form.batch(tokens):
            return form(tokens, state, chunk_size)
        each = range(form.batch(tokens)[0])
        return stack_results([one_by_one(form.select_sequence(tokens, i), select_state(state, i)) for i in each])

    return form(tokens, state, chunk_size), one_by_one(tokens, state)


@grows(
    "All tokens at once: T² operations",
    source=f"{TRIANGLE}; talk-titans, 05:41",
    order=2,
    over=each_form(work="T²", compiled=False),
)
def operations_at_once(form: Form, length: int):
    return count_operations(form, length)


@grows(
    "In recurrent and chunkwise form: T operations",
    source=f"{TRIANGLE}; talk-titans, 12:42",
    order=1,
    over=each_form(work="T", compiled=False),
)
def operations_in_time(form: Form, length: int):
    return count_operations(form, length)


@grows(
    "As a scan of an associative operator: T log T operations, T in each of log T rounds",
    source="hillis1986",
    order=1,
    over=each_form(work="T log T", compiled=False),
)
def operations_in_rounds(form: Form, length: int):
    return count_operations(form, length) / math.log2(length)


@grows(
    "As a convolution, by Fourier transforms: T log T operations",
    source="gu2022s4, eq. 4",
    order=1,
    over=each_form(work="FFT", compiled=False),
    lengths=(64, 128, 256),
)
def operations_of_transforms(form: Form, length: int):
    return count_operations(form, length) / math.log2(length)


def shorter_loops(cases: list[Instance]) -> list[Instance]:
    """Return the instances, with shorter sequences for the forms that loop over tokens in Python."""
    plainest = [next(iter(forms.values())) for forms in mechanisms().values()]
    looping = {id(function) for function in (*plainest, lstm.projected)}
    return [
        replace(case, lengths=(256, 512, 1024)) if id(case.fixed["form"].function) in looping else case
        for case in cases
    ]


@grows("All tokens at once: T² memory", source=MEMORY, order=2, over=each_form(memory="T²"), lengths=(256, 512, 1024))
def memory_at_once(form: Form, length: int):
    return peak_memory(form, length)


@grows(
    "Without an array of all pairs: T memory, for the outputs",
    source=MEMORY,
    order=1,
    lengths=(1024, 2048, 4096),
    over=[
        *shorter_loops(each_form(memory="T", work="T", large_workspace=False)),
        *each_form(memory="T", work="T log T", large_workspace=False),
        *each_form(memory="T", work="FFT", large_workspace=False),
        *each_form(memory="T", work="T²", compiled=True),
    ],
)
def memory_in_time(form: Form, length: int):
    return peak_memory(form, length)


@grows(
    "A chunk of queries against a chunk of keys at a time: T memory for all T² weights",
    source="rabe2021, section 4",
    order=1,
    lengths=(256, 512, 1024),
    over=each_form(memory="T", work="T²", compiled=False),
)
def memory_of_chunks(form: Form, length: int):
    return peak_memory(form, length)


@grows(
    "Of every mechanism but softmax attention the state has the same size after any number of tokens",
    source=f"{TRIANGLE}; talk-titans, 06:06, 12:42",
    order=0,
    over=each_form(state_grows=False),
)
def size_of_state(form: Form, length: int):
    return state_size(form, length)


@grows(
    "Softmax attention keeps every key and value: T numbers",
    source=f"{TRIANGLE}; talk-titans, 06:06",
    order=1,
    over=each_form(state_grows=True),
)
def size_of_softmax_state(form: Form, length: int):
    return state_size(form, length)


@grows(
    "The next token takes the same work after any number of tokens",
    source=f"{TRIANGLE}: inference by an RNN; book-ssm, RNN",
    order=0,
    over=each_form(work="T", state_grows=False, compiled=False),
)
def operations_of_the_next_token(form: Form, length: int):
    return count_next_token(form, length)


@grows(
    "Softmax attention's next token takes T operations, one with each key and value so far",
    source=f"{TRIANGLE}: inference by a Transformer, O(n); book-ssm, Transformer",
    order=1,
    over=each_form(state_grows=True, compiled=False),
)
def operations_of_the_next_softmax_token(form: Form, length: int):
    return count_next_token(form, length)


@grows(
    "T tokens, one after another, take T operations: the talk's O(n) for an RNN is that of all tokens together",
    source=f"{TRIANGLE}: inference by an RNN, O(n), made precise",
    order=1,
    over=each_form(work="T", state_grows=False, compiled=False),
    lengths=(4, 8, 16),
)
def operations_of_generation(form: Form, length: int):
    return sum(count_next_token(form, t) for t in range(1, length + 1))


@grows(
    "With softmax attention T tokens, one after another, take T² operations: its O(n) is that of one token",
    source=f"{TRIANGLE}: inference by a Transformer, O(n), made precise",
    order=2,
    over=each_form(state_grows=True, compiled=False),
    lengths=(8, 16, 32),
)
def operations_of_softmax_generation(form: Form, length: int):
    return sum(count_next_token(form, t) for t in range(1, length + 1))


def count_next_token(form: Form, length: int) -> int:
    """Count the operations of one token from the state after `length` tokens."""
    tally = [0]
    tokens = form.sample(length + 1)
    _, state = form(form.slice_time(tokens, None, length), None, chunk_size=4)
    last = {name: counted(x, tally) for name, x in form.slice_time(tokens, length, None).items()}
    form(last, map_arrays(lambda x: counted(x, tally), state), chunk_size=4)
    return tally[0]


def count_operations(form: Form, length: int) -> float:
    """Count the additions, multiplications, exponentials and comparisons of one call."""
    tally = [0]
    form({name: counted(x, tally) for name, x in form.sample(length).items()}, None, chunk_size=4)
    return tally[0]


def peak_memory(form: Form, length: int) -> int:
    """Return the peak memory of one call beyond its arguments, in bytes: the minimum over calls.

    There are five, or as many as it takes for two of them to have the same minimum.
    A list of free objects that grows, or another program's thread, adds to one of them and not to all. There is one
    thread, and NumPy's own buffers are small: they are as large as an array up to 8192 elements, and no larger.
    """
    tokens, threads = form.sample(length), mg.get_num_threads()
    peaks: list[int] = []
    mg.set_num_threads(1)
    gc.disable()  # it would empty the lists of free objects that the first calls fill
    try:
        with np.errstate():  # which has the size of buffers too
            np.setbufsize(16)
            for _ in range(2):
                form(tokens, chunk_size=4)
            while len(peaks) < 5 and peaks.count(min(peaks, default=0)) < 2:
                tracemalloc.start()
                form(tokens, chunk_size=4)
                peaks.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()
        return min(peaks)
    finally:
        tracemalloc.stop()
        gc.enable()
        mg.set_num_threads(threads)


def state_size(form: Form, length: int) -> int:
    """Return the number of scalars in the final state."""
    _, state = form(form.sample(length))
    return sum(np.size(x) for x in flatten(state))
