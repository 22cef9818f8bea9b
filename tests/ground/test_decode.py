"""The decode loop against a naive one that reads everything anew for every token."""

from __future__ import annotations

import math
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from steer_heal_love.ground import decode, replay
from steer_heal_love.ground.decode import choose, drawn, sample

STEPS = 14
NONE = frozenset({-1})


@pytest.fixture
def prompts(sequences):
    return [s.prompt for s in sequences] + [s.prompt + s.answer for s in sequences]


@pytest.fixture
def ends():
    """Enough tokens that rows finish one after another."""
    return frozenset(range(3, 300, 12))


@pytest.fixture
def direction(model):
    return {2: torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(4))}


def naive(model, prompt, ends, *, steps=STEPS, direction=None, dose=0.0):
    """Greedy, one row, no cache, no padding, its own hook."""
    handles = [
        model.model.layers[i].register_forward_hook(
            lambda _m, _a, out, v=v: (
                (out[0] + dose * v, *out[1:]) if isinstance(out, tuple) else out + dose * v
            )
        )
        for i, v in (direction or {}).items()
    ]
    answer = []
    for _ in range(steps):
        answer.append(model(torch.tensor([list(prompt) + answer])).logits[0, -1].argmax().item())
        if answer[-1] in ends:
            break
    for h in handles:
        h.remove()
    return tuple(answer)


def test_cached_batched_greedy_is_naive_greedy(model, prompts, ends):
    found = sample(model, prompts, ends=ends, max_new_tokens=STEPS, seed=0, temperature=0.0)
    assert found == [naive(model, p, ends) for p in prompts]
    assert len({len(a) for a in found}) > 2, (
        "rows must leave at different steps for this test to say anything"
    )


def test_steering_acts_on_cached_steps(model, prompts, ends, direction):
    doses = [(0.0, 0.4, 1.0)[i % 3] for i in range(len(prompts))]
    found = sample(
        model,
        prompts,
        ends=ends,
        max_new_tokens=STEPS,
        seed=0,
        temperature=0.0,
        steer=direction,
        doses=doses,
    )
    assert found == [
        naive(model, p, ends, direction=direction, dose=d) for p, d in zip(prompts, doses, strict=True)
    ]
    plain = sample(model, prompts, ends=ends, max_new_tokens=STEPS, seed=0, temperature=0.0)
    changed = [a != b for a, b in zip(found, plain, strict=True)]
    assert any(changed) and all(not c for c, d in zip(changed, doses, strict=True) if d == 0.0)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("batch", [1, 3, 10])
def test_batch_is_single_and_finished_rows_leave_without_a_trace(model, prompts, ends, temperature, batch):
    how = {
        "ends": ends,
        "max_new_tokens": STEPS,
        "seed": 3,
        "temperature": temperature,
        "min_p": 0.02,
    }
    assert sample(model, prompts, batch=batch, **how) == sample(model, prompts, batch=64, **how)


@pytest.fixture(params=["captured where there is CUDA", "never captured"])
def replayed(request, monkeypatch):
    """Whole spans at once on any machine; counts the steps that were given room."""
    seen = []
    span = replay._span
    monkeypatch.setattr(replay, "suits", lambda *_: True)
    monkeypatch.setattr(replay, "SPAN", 5)
    monkeypatch.setattr(replay, "POLL", 2)
    monkeypatch.setattr(replay, "_span", lambda *a: seen.append(a[4]) or span(*a))
    if request.param == "never captured":
        monkeypatch.setattr(replay, "recorded", lambda step, *_: (step, 0))
    return seen


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_spans_of_steps_decode_what_single_steps_do(
    model, prompts, ends, direction, temperature, replayed, request, monkeypatch
):
    how = {
        "ends": ends,
        "max_new_tokens": STEPS,
        "seed": 3,
        "temperature": temperature,
        "min_p": 0.02,
        "steer": direction,
        "doses": [0.1 * i for i in range(len(prompts))],
        "batch": 5,
    }
    attention = model.config._attn_implementation
    found = sample(model, prompts, **how)
    assert {5, 3} <= set(replayed), "spans, and a last one cut short, must both be seen"
    assert model.config._attn_implementation == attention
    monkeypatch.setattr(replay, "suits", lambda *_: False)
    steps = len(replayed)
    assert found == sample(model, prompts, **how)
    assert len(replayed) == steps
    assert len({len(a) for a in found}) > 2


@pytest.mark.parametrize("at_once", ["as on a processor", "as on a GPU"])
def test_a_row_that_ended_unseen_is_written_on_and_cut(
    model, prompts, ends, replayed, direction, monkeypatch, at_once
):
    """What a look saw is known one look later, so a row that ends at the end of a span is in the next one too, and in none
    after it."""
    seen = []
    real = decode.put_together
    monkeypatch.setattr(decode, "put_together", lambda *a: seen.append(a) or real(*a))
    if at_once == "as on a GPU":
        monkeypatch.setattr(replay, "known_at_once", torch.zeros_like)
    how = {"ends": ends, "max_new_tokens": STEPS, "seed": 3, "min_p": 0.02, "batch": 10, "steer": direction}
    how["doses"] = [0.1 * i for i in range(len(prompts))]
    found = sample(model, prompts, **how)
    lengths = [0] * len(prompts)
    for _, written, _ in seen:
        for rows, fetch in written:
            for row, more in zip(rows, fetch().tolist(), strict=True):
                lengths[row] += len(more)
    inside = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # as one batch, rows go by length
    cut = [lengths[k] - len(found[i]) for k, i in enumerate(inside)]
    assert max(cut) > replay.SPAN / 2 and min(cut) == 0, "one more span for some, and none for others"
    assert max(cut) <= replay.SPAN + 2 * replay.POLL
    monkeypatch.setattr(replay, "suits", lambda *_: False)
    assert found == sample(model, prompts, **how)


def test_answers_are_put_together_from_what_was_written_of_which_rows():
    written = [
        ([0, 1, 2], lambda: torch.tensor([[1], [9], [1]])),
        ([0, 2], lambda: torch.tensor([[1, 9, 1], [1, 1, 1]])),
        ([0, 2], lambda: torch.tensor([[9, 1], [1, 1]])),
    ]
    assert decode.put_together(3, written, frozenset({9})) == [(1, 1, 9), (9,), (1, 1, 1, 1, 1, 1)]


def test_a_span_ends_with_its_last_row(model, prompts, replayed):
    everything = frozenset(range(300))
    assert all(len(a) == 1 for a in sample(model, prompts, ends=everything, max_new_tokens=STEPS, seed=0))
    assert replayed == []


def test_a_window_or_a_processor_is_left_to_single_steps(model):
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicSlidingWindowLayer

    cache = DynamicCache(config=model.config)
    assert replay.suits(model, cache, 40) == (model.device.type == "cuda")
    cache.layers[0] = DynamicSlidingWindowLayer(sliding_window=40)
    assert not replay.suits(model, cache, 40)


def test_a_seeded_row_does_not_depend_on_the_rows_after_it(model, prompts, ends):
    how = {"ends": ends, "max_new_tokens": STEPS, "seed": 3, "min_p": 0.02}
    all_of_them = sample(model, prompts, **how)
    assert sample(model, prompts[:4], **how) == all_of_them[:4]
    assert sample(model, prompts, **how) == all_of_them
    assert sample(model, prompts, **(how | {"seed": 4})) != all_of_them


def test_rows_draw_from_different_streams(model, prompts):
    same = sample(model, [prompts[0]] * 8, ends=NONE, max_new_tokens=STEPS, seed=0, min_p=0.0)
    assert len(set(same)) == 8


def test_steered_sampling_is_independent_of_the_batch(model, prompts, ends, direction):
    doses = [0.1 * i for i in range(len(prompts))]
    how = {
        "ends": ends,
        "max_new_tokens": STEPS,
        "seed": 3,
        "steer": direction,
        "doses": doses,
        "min_p": 0.02,
    }
    assert sample(model, prompts, batch=1, **how) == sample(model, prompts, batch=4, **how)


def test_dose_zero_samples_what_plain_does(model, prompts, ends, direction):
    how = {"ends": ends, "max_new_tokens": STEPS, "seed": 3}
    steered = sample(model, prompts, steer=direction, doses=[0.0] * len(prompts), **how)
    assert steered == sample(model, prompts, **how)


def test_the_end_of_turn_token_is_kept_as_last_and_only_there(model, prompts, ends):
    found = sample(model, prompts, ends=ends, max_new_tokens=STEPS, seed=0)
    assert any(a[-1] in ends for a in found)
    for a in found:
        assert not set(a[:-1]) & ends
        assert a[-1] in ends or len(a) == STEPS


def test_dose_and_directions_come_together(model, prompts, direction):
    with pytest.raises(ValueError, match="together"):
        sample(model, prompts, ends=NONE, max_new_tokens=2, seed=0, steer=direction)
    with pytest.raises(ValueError, match="together"):
        sample(
            model,
            prompts,
            ends=NONE,
            max_new_tokens=2,
            seed=0,
            doses=[0.0] * len(prompts),
        )


def test_no_hook_survives_decoding_that_fails(model, prompts, direction, hooks, monkeypatch):
    def fail(*_args, **_kwargs):
        raise RuntimeError("injected")

    monkeypatch.setattr("steer_heal_love.ground.decode.choose", fail)
    with pytest.raises(RuntimeError, match="injected"):
        sample(
            model,
            prompts,
            ends=NONE,
            max_new_tokens=2,
            seed=0,
            steer=direction,
            doses=[1.0] * len(prompts),
        )
    assert hooks(model) == 0


def test_progress_adds_up_to_its_total(model, prompts, ends):
    from contextlib import contextmanager

    seen = {"total": 0, "done": 0}

    @contextmanager
    def track(_label, total):
        seen["total"] = total
        yield lambda n: seen.__setitem__("done", seen["done"] + n)

    sample(model, prompts, ends=ends, max_new_tokens=STEPS, seed=0, batch=4, track=track)
    assert seen["done"] == seen["total"] > 0


def test_temperature_zero_is_argmax():
    logits = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    for u in (0.0, 0.5, 0.999):
        assert torch.equal(choose(logits, torch.full((6,), u), 0.0, 0.1), logits.argmax(-1))


def test_inverse_cdf_by_hand():
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log() + 2
    for u, token in (
        (0.0, 0),
        (0.05, 0),
        (0.15, 1),
        (0.29, 1),
        (0.31, 2),
        (0.59, 2),
        (0.61, 3),
        (0.999, 3),
    ):
        assert choose(logits, torch.tensor([u]), 1.0, 0.0).item() == token


def test_temperature_sharpens_by_hand():
    logits = torch.tensor([[0.2, 0.8]]).log()
    p = 0.2**2 / (0.2**2 + 0.8**2)
    assert choose(logits, torch.tensor([p - 0.01]), 0.5, 0.0).item() == 0
    assert choose(logits, torch.tensor([p + 0.01]), 0.5, 0.0).item() == 1


def test_min_p_drops_what_is_below_a_share_of_the_likeliest():
    logits = torch.tensor([[0.02, 0.05, 0.5, 0.03, 0.4]]).log()
    drawn = {
        choose(logits, torch.tensor([u]), 1.0, 0.09).item() for u in torch.linspace(0, 0.9999, 500).tolist()
    }
    assert drawn == {1, 2, 4}
    assert choose(logits, torch.tensor([0.5 * 0.05 / 0.95]), 1.0, 0.09).item() == 1
    assert choose(logits, torch.tensor([1.5 * 0.05 / 0.95]), 1.0, 0.09).item() == 2
    drawn = {
        choose(logits, torch.tensor([u]), 1.0, 0.0).item() for u in torch.linspace(0, 0.9999, 500).tolist()
    }
    assert drawn == {0, 1, 2, 3, 4}


def test_the_largest_uniform_never_leaves_the_table():
    logits = 4 * torch.randn(500, 301, generator=torch.Generator().manual_seed(0))
    top = torch.full((500,), 1 - 2**-24)
    for min_p in (0.0, 0.1):
        token = choose(logits, top, 1.0, min_p)
        assert token.max() < 301
        kept = logits >= logits.amax(-1, keepdim=True) + (math.log(min_p) if min_p else -math.inf)
        assert kept.gather(1, token[:, None]).all()


@pytest.mark.parametrize("vocabulary", [1, 2, 7, 64, 301, 600])
def test_a_draw_by_blocks_is_the_draw_from_the_whole_running_sum(vocabulary):
    draw = torch.Generator().manual_seed(vocabulary)
    odds = torch.randint(0, 4, (200, vocabulary), generator=draw).float()
    odds[:, vocabulary // 2] = 1.0
    uniform = torch.rand(200, generator=draw)
    sums = odds.double().cumsum(-1)
    whole = (sums > (uniform.double() * sums[:, -1])[:, None]).int().argmax(-1)
    found = drawn(odds, uniform)
    assert torch.equal(found, whole)
    assert odds.gather(1, found[:, None]).all(), "what has no odds is not drawn"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_that_overflowed_draws_a_token_and_leaves_the_others_alone(bad):
    logits = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    uniform = torch.tensor([0.2, 0.5, 0.8])
    whole = choose(logits, uniform, 1.0, 0.1)
    logits[1] = bad
    found = choose(logits, uniform, 1.0, 0.1)
    assert found[0] == whole[0] and found[2] == whole[2] and 0 <= found[1] < 64


def test_a_running_sum_that_rises_where_there_are_no_odds_draws_none_of_them():
    odds = torch.tensor([[0.5, 0.0, 0.5, 0.0]])
    bumpy = torch.tensor([[0.5, 0.5 + 2**-24, 1.0, 1.0 + 2**-23]])
    for target in (0.0, 0.5, 1.0, 2.0):
        place = decode.first_above(odds, bumpy, torch.tensor([[target]])).item()
        assert place == (0 if target < 0.5 else 2)


def test_an_edge_between_blocks_belongs_to_the_next_token():
    odds = torch.ones(1, 64)
    assert [drawn(odds, torch.tensor([k / 64])).item() for k in range(64)] == list(range(64))


def test_drawn_frequencies_are_the_probabilities():
    p = torch.tensor([0.1, 0.2, 0.3, 0.4])
    n = 20_000
    u = torch.rand(n, generator=torch.Generator().manual_seed(0))
    token = choose(p.log().expand(n, 4), u, 1.0, 0.0)
    assert torch.allclose(token.bincount(minlength=4) / n, p, atol=0.015)


def test_no_prompts_give_no_answers(model):
    assert sample(model, [], ends=NONE, max_new_tokens=3, seed=0) == []


def test_what_prompts_begin_with_is_read_once_a_dose(model, prompts, ends, direction, monkeypatch):
    together = [(7, 8, 9, 10, 11, *p) for p in prompts]
    read = []
    begin = decode.worth_sharing  # the chat template and the system prompt, in a run
    monkeypatch.setattr(decode, "worth_sharing", lambda m, p: read.append(begin(m, p)) or read[-1])
    how = {"ends": ends, "max_new_tokens": STEPS, "seed": 0, "temperature": 0.0, "steer": direction}
    how["doses"] = [(0.0, 0.4, 1.0)[i % 3] for i in range(len(together))]
    found = sample(model, together, **how)
    assert read == [5 + begin(model, prompts)]
    monkeypatch.setattr(decode, "worth_sharing", lambda _m, _p: 0)
    assert found == sample(model, together, **how)


@pytest.mark.parametrize("fails", [False, True])
def test_a_kind_of_step_is_taken_once_before_it_is_captured(monkeypatch, recwarn, fails):
    """A stand-in for a GPU, where no capture works if it `fails`."""
    steps, captures = [], []

    def graphed(work, *, tidy):
        captures.append(tidy)
        if fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        return SimpleNamespace(replay=lambda: steps.append("replayed")), None

    monkeypatch.setattr(replay, "graphed", graphed)
    monkeypatch.setattr(replay, "unclaimed_bytes", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device", lambda _d: nullcontext())
    gpu = nn.Module()
    gpu.device = torch.device("cuda")
    ran = [replay.recorded(lambda: steps.append("taken"), gpu, rows)[1] for rows in (1, 7, 9, 32, 16, 1)]
    assert ran == [1, 1, 0, 1, 0, 0] and steps == ["taken"] * 3 and captures == [True] * 6
    advance, _ = replay.recorded(lambda: steps.append("taken"), gpu, 7)
    advance()
    assert steps[3:] == (["taken"] if fails else ["replayed"])
    assert bool(recwarn) == fails
    processor = SimpleNamespace(device=torch.device("cpu"))
    advance, ran = replay.recorded(lambda: steps.append("on a processor"), processor, 7)
    advance()
    assert ran == 0 and steps[-1] == "on a processor"
