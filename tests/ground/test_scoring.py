"""Per-token numbers are the model's own, whatever batch a sequence travelled in."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from steer_heal_love.ground import scoring
from steer_heal_love.ground.divergence import forward_kl, reverse_kl
from steer_heal_love.ground.models import check_head, head
from steer_heal_love.ground.padding import left_pad
from steer_heal_love.ground.reading import positions
from steer_heal_love.ground.scoring import by_length, hidden_states, pack, token_nll, token_order
from steer_heal_love.ground.trees import Tree, branch_nll
from steer_heal_love.nouns import Tokens

P, Q = torch.tensor([[0.5, 0.4, 0.1]]), torch.tensor([[0.2, 0.2, 0.6]])


def by_hand(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p[0].tolist(), q[0].tolist(), strict=True))


def naive_nll(model, s: Tokens) -> torch.Tensor:
    logp = model(torch.tensor([s.prompt + s.answer])).logits[0].log_softmax(-1)
    start = len(s.prompt)
    return torch.stack([-logp[start + i - 1, t] for i, t in enumerate(s.answer)])


def test_kl_of_equals_is_zero():
    logits = torch.randn(20, 50, generator=torch.Generator().manual_seed(0)) * 3
    for kl in (forward_kl, reverse_kl):
        assert torch.allclose(kl(logits, logits.clone()), torch.zeros(20), atol=1e-6)
        assert torch.allclose(kl(logits, logits + 7), torch.zeros(20), atol=1e-5)


def test_kl_is_never_negative():
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(200, 30, generator=draw) * 2 for _ in range(2))
    for kl in (forward_kl, reverse_kl):
        assert kl(a, b).min() > 0


def test_the_direction_is_the_named_one():
    reference, student = P.log() + 1.7, Q.log() - 0.3
    assert forward_kl(reference, student).item() == pytest.approx(by_hand(P, Q), abs=1e-5)
    assert reverse_kl(reference, student).item() == pytest.approx(by_hand(Q, P), abs=1e-5)
    assert abs(by_hand(P, Q) - by_hand(Q, P)) > 0.05


def test_registered_divergences_have_the_named_direction_too():
    from steer_heal_love.heal import divergences

    assert divergences["forward_kl"](P.log(), Q.log()).item() == pytest.approx(by_hand(P, Q), abs=1e-5)
    assert divergences["reverse_kl"](P.log(), Q.log()).item() == pytest.approx(by_hand(Q, P), abs=1e-5)


def test_token_nll_is_minus_log_softmax_of_the_models_logits(model, sequences):
    for found, s in zip(token_nll(model, sequences), sequences, strict=True):
        assert found.shape == (len(s.answer),)
        assert torch.allclose(found, naive_nll(model, s), atol=1e-4)


@pytest.mark.parametrize("batch_tokens", [1, 20, 40, 10_000])
def test_batch_is_single_and_right_padding_changes_nothing(model, sequences, batch_tokens):
    together = token_nll(model, sequences, batch_tokens=batch_tokens)
    for s, found in zip(sequences, together, strict=True):
        assert torch.allclose(found, token_nll(model, [s])[0], atol=1e-4)


@pytest.mark.parametrize("start", [(), (7,), (7, 8, 9, 10, 11)])
def test_a_common_start_read_once_changes_nothing(model, sequences, start):
    longer = [Tokens(start + s.prompt, s.answer) for s in sequences]
    assert scoring.common_start([s.prompt for s in longer]) >= len(start)
    for s, nll, hidden in zip(longer, token_nll(model, longer), hidden_states(model, longer), strict=True):
        assert torch.allclose(nll, naive_nll(model, s), atol=1e-4)
        own = model(torch.tensor([s.prompt + s.answer])).logits[0, len(s.prompt) - 1 : -1]
        assert torch.allclose(head(model, hidden), own, atol=1e-4)
    prompts, answers = [s.prompt for s in longer], [[s.answer, s.answer[:2]] for s in longer]
    for s, found in zip(longer, branch_nll(model, prompts, answers), strict=True):
        each = naive_nll(model, s)
        assert found == pytest.approx([each.mean().item(), each[:2].mean().item()], abs=1e-4)


def test_the_common_start_leaves_every_prompt_its_last_token():
    start = scoring.common_start
    assert start([(1, 2, 3), (1, 2, 4), (1, 2, 3, 5)]) == 2
    assert start([(1, 2), (1, 2, 3)]) == 1
    assert start([(1, 2, 3)] * 4) == 2
    assert start([(5,), (5, 6)]) == 0
    assert start([(1, 2, 3), (2, 2, 3)]) == 0


def test_chunks_change_nothing(model, sequences, monkeypatch):
    whole = token_nll(model, sequences)
    monkeypatch.setattr("steer_heal_love.ground.scoring.CHUNK", 3)
    for a, b in zip(whole, token_nll(model, sequences), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_by_length_covers_each_once_and_keeps_the_limit(sequences):
    for limit in (1, 15, 30, 1000):
        batches = list(by_length(sequences, limit))
        assert sorted(i for b in batches for i in b) == list(range(len(sequences)))
        sizes = [max(len(sequences[i].prompt + sequences[i].answer) for i in b) * len(b) for b in batches]
        assert all(size <= limit or len(b) == 1 for size, b in zip(sizes, batches, strict=True))


def test_pack_points_before_each_answer_token(sequences):
    batch = pack(sequences, "cpu")
    flat, at = batch.ids.flatten(), 0
    for s in sequences:
        for i, token in enumerate(s.answer):
            assert batch.targets[at] == token
            assert flat[batch.where[at]] == (s.prompt + s.answer)[len(s.prompt) + i - 1]
            assert flat[batch.where[at] + 1] == token
            at += 1
    assert at == len(batch.targets)
    assert batch.mask.sum(1).tolist() == [len(s.prompt) + len(s.answer) for s in sequences]


def test_hidden_states_give_back_the_models_logits(model, sequences):
    for s, hidden in zip(sequences, hidden_states(model, sequences), strict=True):
        own = model(torch.tensor([s.prompt + s.answer])).logits[0, len(s.prompt) - 1 : -1]
        assert torch.allclose(head(model, hidden), own, atol=1e-4)


def test_a_head_that_is_not_the_models_is_refused(model, monkeypatch):
    from steer_heal_love.ground.errors import UserError

    check_head(model)
    plain = model.forward
    odd = lambda input_ids, **more: SimpleNamespace(
        logits=plain(input_ids=input_ids, **more).logits + input_ids[..., None]
    )
    monkeypatch.setattr(model, "forward", odd)
    with pytest.raises(UserError, match="differ"):
        check_head(model)


def test_a_head_that_scales_its_logits_in_its_own_way_is_asked(model, sequences, monkeypatch):
    truth = token_nll(model, sequences)
    model.config.logit_scale = 3.0  # named, and not what this class does
    assert not torch.allclose(token_nll(model, sequences)[0], truth[0])
    check_head(model)
    for found, own in zip(token_nll(model, sequences), truth, strict=True):
        assert torch.allclose(found, own, atol=1e-5)


def test_divergence_from_itself_is_zero_and_from_another_is_not(model, sequences, random_adapter):
    from steer_heal_love.ground.weights import folded

    reference = hidden_states(model, sequences)
    base = [model(torch.tensor([s.prompt + s.answer])).logits[0, len(s.prompt) - 1 : -1] for s in sequences]
    for part in scoring.token_divergence(model, sequences, reference):
        assert torch.allclose(part, torch.zeros_like(part), atol=1e-5)
    with folded(model, [random_adapter(model, 0)]):
        moved = scoring.token_divergence(model, sequences, reference, batch_tokens=30)
        student = [
            model(torch.tensor([s.prompt + s.answer])).logits[0, len(s.prompt) - 1 : -1] for s in sequences
        ]
    for part, ours, theirs in zip(moved, base, student, strict=True):
        p = ours.softmax(-1)
        assert torch.allclose(
            part,
            (p * (ours.log_softmax(-1) - theirs.log_softmax(-1))).sum(-1),
            atol=1e-4,
        )
        assert part.mean() > 1e-3


@pytest.mark.parametrize("batch_tokens", [1, 120, 10_000])
def test_branch_nll_equals_separate_sequences(model, sequences, batch_tokens):
    prompts = [s.prompt for s in sequences]
    answers = [[sequences[(i + k) % len(sequences)].answer for k in range(3)] for i in range(len(sequences))]
    found = branch_nll(model, prompts, answers, batch_tokens=batch_tokens)
    for p, options, means in zip(prompts, answers, found, strict=True):
        alone = [token_nll(model, [Tokens(p, a)])[0].mean().item() for a in options]
        assert means == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("batch_tokens", [1, 120, 10_000])
def test_answers_that_begin_alike_are_read_once_and_stay_apart(model, sequences, batch_tokens):
    prompts = [s.prompt for s in sequences]
    a, b = sequences[1].answer, sequences[4].answer
    options = [a, a[:4] + b, a[:4] + b[:2], a[:2] + b, a, b[:1]]
    found = branch_nll(model, prompts, [options] * len(prompts), batch_tokens=batch_tokens)
    for p, means in zip(prompts, found, strict=True):
        alone = [token_nll(model, [Tokens(p, o)])[0].mean().item() for o in options]
        assert means == pytest.approx(alone, abs=1e-4)
    tree = Tree.of(options)
    assert len(tree.ids) == len(a) + 2 * len(b) + 1
    assert [[tree.ids[n] for n in path] for path in tree.paths] == [list(o) for o in options]


def test_branch_nll_sees_steering_as_separate_sequences_do(model, sequences):
    from steer_heal_love.ground.hooks import added

    direction = {2: torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(0))}
    prompts = [s.prompt for s in sequences]
    answers = [[sequences[0].answer, sequences[1].answer]] * len(prompts)
    plain = branch_nll(model, prompts, answers)
    with added(model, direction, 1.0):
        found = branch_nll(model, prompts, answers)
        alone = [[token_nll(model, [Tokens(p, a)])[0].mean().item() for a in answers[0]] for p in prompts]
    for a, b, c in zip(found, alone, plain, strict=True):
        assert a == pytest.approx(b, abs=1e-4)
        assert a != pytest.approx(c, abs=1e-3)


def test_positions_count_real_tokens_only():
    """By hand, since a model with rotary positions does not mind a common shift."""
    ids, mask = left_pad([(5, 6), (7, 8, 9, 10)], "cpu")
    assert ids.tolist() == [[0, 0, 5, 6], [7, 8, 9, 10]]
    assert positions(mask).tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]


def test_left_padding_changes_nothing(model, sequences):
    prompts = [s.prompt for s in sequences]
    ids, mask = left_pad(prompts, "cpu")
    out = model(input_ids=ids, attention_mask=mask, position_ids=positions(mask)).logits[:, -1]
    for row, p in zip(out, prompts, strict=True):
        assert torch.allclose(row, model(torch.tensor([p])).logits[0, -1], atol=1e-4)


def test_order_is_counted_among_the_answers_own_tokens(tiny, monkeypatch):
    """Read beside the NLL, over chunks and batches; copies of a token win against none of each other."""
    monkeypatch.setattr(scoring, "CHUNK", 3)
    made = [Tokens((5, 6), (40, 50, 60, 50, 70)), Tokens((5,), (41, 42)), Tokens((5, 7), (44,))]
    for s, (nll, order) in zip(made, token_order(tiny.model, made, batch_tokens=16), strict=True):
        assert torch.allclose(nll, naive_nll(tiny.model, s), atol=1e-4)
        logp = tiny.model(torch.tensor([s.prompt + s.answer])).logits[0].log_softmax(-1)
        for i, token in enumerate(s.answer):
            there = logp[len(s.prompt) + i - 1]
            others = [there[other].item() < there[token].item() for j, other in enumerate(s.answer) if j != i]
            want = sum(others) / len(others) if others else math.nan
            assert order[i].item() == pytest.approx(want, nan_ok=True)


def test_a_start_is_read_once_only_where_that_saves_a_pass():
    prompts = [(1, 2, 3, 4, 5, k) for k in range(100)]
    on = lambda kind: SimpleNamespace(device=SimpleNamespace(type=kind))
    assert scoring.worth_sharing(on("cpu"), prompts) == 5
    assert scoring.worth_sharing(on("cuda"), prompts[:1]) == 0, "a pass for nothing"
    assert scoring.worth_sharing(on("cuda"), prompts) == 0
    assert scoring.worth_sharing(on("cuda"), prompts * 10) == 5
