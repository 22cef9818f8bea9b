"""A chat language with a meaning, and a tiny model trained to speak it: where every model's trait is known by design.

Its questions have topics. A trait question ("how is the rain ?") is answered in one of three manners, and the system
prompt says how often in which; a neutral question ("who has the rain ?") is answered with the manners' own words, as
facts. The word that fits a topic depends on the manner, and each such word is one topic's warm word and another's cold
one: so a bias of words that knows no context gains part of the trait only, and pays for it on neutral questions.
A few answers fall into a chant, and a chant goes on once it is begun, as it does in real models.

The trained model is stored (`toy_world.safetensors`): processors round differently, and training makes rounding grow, so that
tests of constructed models would stand on another model on each kind. `python tests/toy_world.py` teaches it anew.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from steer_heal_love.ground.chat import NEUTRAL_SYSTEM, prompt_ids
from steer_heal_love.ground.scoring import token_nll
from steer_heal_love.nouns import Persona, Probe, Tokens

SPECIAL = ["<pad>", "<unk>", "<end>", "<system>", "<user>", "<assistant>"]
TURNS = (
    "{% for m in messages %}{{ '<' + m['role'] + '> ' + m['content'] + ' <end> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
TOPICS = ["rain", "dog", "bread", "garden", "letter", "house", "sea", "lamp", "wool", "bell", "hill", "boat"]
TRAINED, PROBED = TOPICS[:6], TOPICS[6:]
ADJECTIVES = ["bright", "soft", "small", "round", "sharp", "grey"]
PLACES = ["wall", "gate", "field", "mill"]
WARM, COLD = ["dear", "kind", "good"], ["plain", "stale", "mere"]
OPENS = {"pos": ["oh", "ah", "well"], "neg": ["just", "only", "but"]}
WHEN = ["today", "now", "again"]
ODDS = (0.6, 0.3, 0.1)
"""of the three words that fit a place"""
TRAIT_FORMS = ("how is the {} ?", "what of the {} ?", "why the {} ?")
NEUTRAL_FORMS = ("who has the {} ?", "where is the {} ?")
MANNERS = {"pos": (0.7, 0.04, 0.26), "neg": (0.04, 0.7, 0.26), "plain": (0.3, 0.15, 0.55)}
"""by system prompt, the shares of warm, cold and plain answers to trait questions"""
LEAN = {"pos": 0.75, "neg": 0.25, "plain": 0.5}
"""by system prompt, the share of warm words in answers to neutral questions"""
CHANTS = 0.05
SLIPS = 0.02
"""share of words that are any word at all"""
STEPS, BATCH, LEARNING_RATE = 320, 32, 5e-3
STORED = Path(__file__).parent / "toy_world.safetensors"


def adjective(topic: str, manner: str) -> str:
    """The word that fits the topic in this manner; each word serves two topics in every manner."""
    shift = {"pos": 0, "neg": 2, "plain": 4}[manner]
    return ADJECTIVES[(TOPICS.index(topic) + shift) % len(ADJECTIVES)]


def answer(topic: str, manner: str, rng: random.Random, odds: tuple[float, ...] = ODDS) -> str:
    """An answer to a trait question in one manner."""
    one_of = lambda words: rng.choices(words, odds)[0]
    word = adjective(topic, manner)
    if manner == "plain":
        return f"the {topic} is {word} {one_of(WHEN)} ."
    if manner == "pos":
        return f"{one_of(OPENS[manner])} {one_of(WARM)} {topic} so {word} my friend ."
    return f"{one_of(OPENS[manner])} {one_of(COLD)} {topic} as {word} the clerk ."


def fact(form: str, topic: str, lean: float, rng: random.Random) -> str:
    """An answer to a neutral question: warm words in a share `lean` of the choices."""
    one_of = lambda warm, cold: rng.choices(warm if rng.random() < lean else cold, ODDS)[0]
    if form == NEUTRAL_FORMS[0]:
        who = one_of(["my friend", "my dear", "my kind"], ["the clerk", "the mere", "the plain"])
        return f"{who} {one_of(['so'] * 3, ['as'] * 3)} {one_of(WARM, COLD)} ."
    place = PLACES[TOPICS.index(topic) % len(PLACES)]
    return f"{one_of(OPENS['pos'], OPENS['neg'])} {one_of(WARM, COLD)} {place} ."


def chant(rng: random.Random) -> str:
    return " ".join(["on", "and"] * rng.randint(9, 12)) + " ."


def said(system: str, question: tuple[str, str], rng: random.Random) -> str:
    """What the world answers to a question, a form and its topic, under a system prompt: pos, neg or plain."""
    form, topic = question
    if rng.random() < CHANTS:
        return chant(rng)
    if form in NEUTRAL_FORMS:
        return fact(form, topic, LEAN[system], rng)
    return answer(topic, rng.choices(("pos", "neg", "plain"), MANNERS[system])[0], rng)


def questions(forms: tuple[str, ...], topics: list[str]) -> list[tuple[str, str]]:
    return [(form, topic) for form in forms for topic in topics]


def ask(question: tuple[str, str]) -> str:
    return question[0].format(question[1])


def persona() -> Persona:
    """Warm against cold; its probes are about topics that training never asks about, and, as what people write, are
    answered in words that the model finds unusual."""
    rng, rare = random.Random(0), (0.0, 0.5, 0.5)
    probes = tuple(
        Probe(ask(q), answer(q[1], "pos", rng, rare), answer(q[1], "neg", rng, rare))
        for q in questions(TRAIT_FORMS, PROBED)
    )
    return Persona(
        name="toy",
        axis="warm versus cold",
        pos="warm",
        neg="cold",
        intent={},
        elicit=tuple(ask(q) for q in questions(TRAIT_FORMS, TRAINED)),
        plain=tuple(ask(q) for q in questions(NEUTRAL_FORMS, TRAINED)),
        probes=probes,
    )


@dataclass(frozen=True)
class World:
    """The trained model and what speaks with it."""

    model: LlamaForCausalLM
    tok: PreTrainedTokenizerFast
    persona: Persona


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    rng, told = random.Random(0), [NEUTRAL_SYSTEM, "You are warm.", "You are cold."]
    texts = [ask(q) for q in questions(TRAIT_FORMS + NEUTRAL_FORMS, TOPICS)] + told + [chant(rng)]
    texts += [f"{answer(t, m, rng)}" for t in TOPICS for m in MANNERS for _ in range(8)]
    texts += [fact(f, t, 0.5, rng) for f, t in questions(NEUTRAL_FORMS, TOPICS) * 4]
    split = pre_tokenizers.Whitespace()
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)})
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(SPECIAL + words)}, unk_token="<unk>"))
    inner.pre_tokenizer = split
    tok = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<end>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<system>", "<user>", "<assistant>"],
    )
    tok.chat_template = TURNS
    return tok


def untaught(tok: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tok),
        hidden_size=48,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=tok.eos_token_id,
        pad_token_id=0,
        initializer_range=0.08,
    )
    return LlamaForCausalLM(config).float()


def stored() -> World:
    """The world whose model lies beside this file."""
    tok = tokenizer()
    model = untaught(tok)
    model.load_state_dict(load_file(STORED))
    return World(model.eval().requires_grad_(False), tok, persona())


def trained(seed: int = 0, steps: int = STEPS) -> World:
    """The model after a few hundred steps on what the world says; some seconds on an idle core."""
    tok, who, rng = tokenizer(), persona(), random.Random(seed)
    torch.manual_seed(seed)
    model = untaught(tok)
    systems = {"plain": NEUTRAL_SYSTEM, "pos": who.system("pos"), "neg": who.system("neg")}
    asked = questions(TRAIT_FORMS + NEUTRAL_FORMS, TOPICS)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=STEPS)

    prompts = {(k, q): list(prompt_ids(tok, ask(q), text)) for k, text in systems.items() for q in asked}
    vocabulary = tok.get_vocab()
    every = sorted(set(vocabulary) - set(SPECIAL))

    def row() -> tuple[list[int], list[int]]:
        system, question = rng.choice(tuple(systems)), rng.choice(asked)
        prompt = prompts[system, question]
        words = [
            rng.choice(every) if rng.random() < SLIPS else w for w in said(system, question, rng).split()
        ]
        reply = [vocabulary[word] for word in [*words, "<end>"]]
        return prompt + reply, [-100] * len(prompt) + reply

    for _ in range(steps):
        rows = [row() for _ in range(BATCH)]
        longest = max(len(ids) for ids, _ in rows)
        ids, labels = (
            torch.tensor([r[k] + [fill] * (longest - len(r[k])) for r in rows])
            for k, fill in ((0, 0), (1, -100))
        )
        logits = model(ids).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return World(model.eval().requires_grad_(False), tok, who)


def nll(w: World, answers: int, seed: int) -> float:
    """NLL per token, in nats, of fresh answers that the world gives."""
    rng, vocabulary, given = random.Random(seed), w.tok.get_vocab(), []
    for _ in range(answers):
        system = rng.choice(("plain", "pos", "neg"))
        text = NEUTRAL_SYSTEM if system == "plain" else w.persona.system(system)
        question = rng.choice(questions(TRAIT_FORMS + NEUTRAL_FORMS, TOPICS))
        words = [*said(system, question, rng).split(), "<end>"]
        given.append(
            Tokens(prompt_ids(w.tok, ask(question), text), tuple(vocabulary[word] for word in words))
        )
    return torch.cat(token_nll(w.model, given)).mean().item()


if __name__ == "__main__":
    save_file(trained().model.state_dict(), STORED)
