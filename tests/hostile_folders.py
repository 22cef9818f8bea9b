"""Hostile folders by kind, each drawn from a seed: models, adapters as PEFT makes them, runs, comparisons, certificates.

As in `hostile`, each is a good one with one thing done to it. A forger signs what was changed: the log and the manifest
hold its hash. What nobody signed must be refused; what was signed must at least be of the kind that is written there.
"""

from __future__ import annotations

import functools
import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import tomli_w
import torch
from safetensors.torch import load_file, save_file

import tiny_run
from hostile import ODD, bytes_damaged
from steer_heal_love.ground import made
from steer_heal_love.ground.untrusted import toml
from steer_heal_love.nouns import FOUNDATIONS
from tiny_model import build_model, build_tokenizer

VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    3.5,
    2**80,
    1e300,
    -1e300,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\x1b[2J",
    "[/b]",
    "{{'dro'*3}}",
    "<script>",
    [],
    {},
    [[]],
    "w" * 50_000,
    [1, "x"],
    {"a": 1},
    "\ud800",
    list(range(3)),
]
Made = tuple[Path, bool, str]
"""where a case lies, whether it must be refused, and what was done"""


def spoiled(draw: random.Random, value: Any) -> Any:
    """The value with one part of it replaced, lost, renamed or added."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(sorted(value))
        how = draw.random()
        if how < 0.08:
            return {k: v for k, v in value.items() if k != key}
        if how < 0.12:
            return value | {draw.choice(ODD) + "key": draw.choice(VALUES)}
        return value | {key: spoiled(draw, value[key])}
    if isinstance(value, list) and value and draw.random() < 0.9:
        at = draw.randrange(len(value))
        if draw.random() < 0.1:
            return value[:at] + value[at + 1 :]
        return [*value[:at], spoiled(draw, value[at]), *value[at + 1 :]]
    return draw.choice(VALUES)


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@functools.cache
def good(what: str) -> Path:
    """A folder of a kind that nothing was done to, made once."""
    home = Path(tempfile.mkdtemp(prefix="good-"))
    if what == "run":
        return tiny_run.run(home, rounds=1)
    if what == "comparison":
        tiny_run.comparison(home / "c", rounds=1)
        return home / "c"
    tok = build_tokenizer()
    build_model(len(tok), tok.eos_token_id, depth=tiny_run.DEPTH).save_pretrained(home / "m")
    tok.save_pretrained(home / "m")
    return home / "m"


def copied(what: str, folder: Path) -> Path:
    return Path(shutil.copytree(good(what), folder / "it"))


def spoil_file(draw: random.Random, file: Path) -> str:
    """One thing done to a file, within its format or to its bytes."""
    if draw.random() < 0.2 or file.suffix in (".png", ".html", ".safetensors"):
        file.write_bytes(bytes_damaged(draw, file.read_bytes() or b"\0")[0])
        return "bytes"
    if file.suffix == ".json":
        file.write_bytes(dumped(spoiled(draw, json.loads(file.read_text()))))
    elif file.suffix == ".jsonl":
        rows = file.read_text().splitlines()
        at = draw.randrange(len(rows))
        rows[at] = dumped(spoiled(draw, json.loads(rows[at]))).decode("utf-8", "surrogatepass")
        file.write_bytes("\n".join(rows).encode("utf-8", "surrogatepass"))
    else:
        table = spoiled(draw, toml(file, "f").data)
        try:
            file.write_bytes(tomli_w.dumps(table).encode("utf-8", "surrogatepass"))
        except (TypeError, AttributeError):
            file.write_bytes(b"x = [")
    return "value"


def run(draw: random.Random, folder: Path) -> Made:
    here = copied("run", folder)
    files = [p for p in sorted(here.rglob("*")) if p.is_file() and p.name != ".lock"]
    file = draw.choice([p for p in files if p.suffix in (".json", ".jsonl", ".toml")] + files)
    name, how = str(file.relative_to(here)), draw.choice(["unsigned", "signed", "signed", "signed", "link"])
    if how == "link":
        elsewhere = folder / "elsewhere"
        file.rename(elsewhere)
        file.symlink_to(draw.choice([elsewhere, Path("/etc/passwd")]))
        return here, True, f"link at {name}"
    before = file.read_bytes()
    what = spoil_file(draw, file)
    if how == "signed":
        sign(here, file)
    hashed = name in hashes(here)
    must = how == "unsigned" and hashed and file.read_bytes() != before
    return here, must and name not in made.PAGES, f"{how} {what} of {name}"


def hashes(run: Path) -> set[str]:
    """The files that the log or the manifest of a good run holds hashes of."""
    events = [json.loads(line) for line in (good("run") / "events.jsonl").read_text().splitlines()]
    given = json.loads((good("run") / "manifest.json").read_text())["files"]
    return {name for e in events for name in e.get("files", {})} | set(given)


def sign(run: Path, file: Path) -> None:
    """Put the file's hash wherever the run's own was."""
    was, now = made.digest(good("run") / file.relative_to(run)), made.digest(file)
    for keeper in ("events.jsonl", "manifest.json"):
        if file.name != keeper:
            kept = run / keeper
            kept.write_bytes(kept.read_bytes().replace(was.encode(), now.encode()))


def comparison(draw: random.Random, folder: Path) -> Made:
    here = folder / "it"
    here.mkdir()
    shutil.copy(good("comparison") / "compare.json", here)
    return here, False, spoil_file(draw, here / "compare.json")


def score() -> dict[str, Any]:
    return {"mean": 0.5, "lo": 0.2, "hi": 0.8, "n": 9}


def certificate(draw: random.Random, folder: Path) -> Made:
    gate = {
        "gate": "certificate",
        "claim": "c",
        "observed": "o",
        "verdict": "pass",
        "means": "m",
        "outcome": "it_is",
    }
    names = ("trait_shift", "neutral_kl", "own_excess", "capability", "text_auc")
    trait = {
        "persona": "love",
        "kind": "certified",
        "gate": gate,
        "scores": {n: score() for n in names},
        "base": {},
        "samples": [{"prompt": f"p{i}", "base": "b", "model": "m"} for i in range(3)],
    }
    record = {
        "schema": 1,
        "target": "t",
        "kind": "adapter",
        "base": "smollm2",
        "verdict": "certified",
        "seed": 0,
        "device": "cpu",
        "dtype": "torch.float32",
        "base_hash": "0",
        "versions": {},
        "modules": 3,
        "rank": 2,
        "notes": ["n"],
        "traits": [trait],
        "others": {f: score() for f in FOUNDATIONS[:2]},
    }
    return alone(draw, folder, "certificate.json", record)


def fight(draw: random.Random, folder: Path) -> Made:
    way = {"moved": score(), "learned": score(), "scores": {"neutral_kl": score()}}
    record = {
        "schema": 1,
        "kind": "fight",
        "persona": "love",
        "model": "m",
        "rows": 3,
        "held_rows": 2,
        "unwanted": "u",
        "seed": 0,
        "ways": {"plain": way, "prevented": way},
        "prevented": score(),
        "given_up": score(),
        "says": ["a", "b"],
        "dose": 0.5,
    }
    return alone(draw, folder, "fight.json", record)


def alone(draw: random.Random, folder: Path, name: str, record: dict[str, Any]) -> Made:
    here = folder / "it"
    here.mkdir()
    (here / name).write_bytes(dumped(record))
    return here, False, spoil_file(draw, here / name)


LOST = ("lost", "head", "prefix", "shape", "nan", "wide")


def model(draw: random.Random, folder: Path) -> Made:
    here = copied("model", folder)
    how = draw.choice([*LOST, "config", "config", "tokenizer", "template", "bytes", "link"])
    if how in LOST:
        weights = load_file(here / "model.safetensors")
        save_file(lacking(draw, weights, how), here / "model.safetensors", metadata={"format": "pt"})
        return here, True, how
    if how == "config":
        file = here / draw.choice(["config.json", "generation_config.json", "tokenizer_config.json"])
        file.write_bytes(
            draw.choice(
                [
                    dumped(spoiled(draw, json.loads(file.read_text()))),
                    b"[" * 60_000,
                    b'{"a":' * 60_000,
                    b"\xff\xfe{",
                    b'{"a": ' + b"9" * 5_000 + b"}",
                ]
            )
        )
        return here, False, f"{how} {file.name}"
    if how == "template":
        file = here / "chat_template.jinja"
        file.write_text(
            draw.choice(
                [
                    "{{",
                    "{% for i in range(10**12) %}x{% endfor %}",
                    "{{ x.y.z }}",
                    "\x1b[2J",
                    "",
                    "{{ ''.__class__.__mro__ }}",
                    "{{ raise_exception('\x1b[2J') }}",
                    "{% raw %}" * 9,
                    "{{ 'a' * 10**9 }}",
                    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
                    "{{ messages[0]['content'] }}{{ 'x'|center(10**10) }}",
                ]
            )
        )
        return here, False, how
    file = here / {"tokenizer": "tokenizer.json", "bytes": "model.safetensors", "link": "config.json"}[how]
    if how == "link":
        file.unlink()
        file.symlink_to(draw.choice([Path("/etc/passwd"), file, Path("/dev/zero")]))
        return here, True, how
    if how == "tokenizer" and draw.random() < 0.5:
        file.write_bytes(dumped(spoiled(draw, json.loads(file.read_text()))))
    else:
        file.write_bytes(bytes_damaged(draw, file.read_bytes())[0])
    return here, False, how


def lacking(draw: random.Random, weights: dict[str, torch.Tensor], how: str) -> dict[str, torch.Tensor]:
    """Weights that are not the model's."""
    name = draw.choice([n for n in sorted(weights) if n.startswith("model.layers")])
    if how == "prefix":
        return (
            {draw.choice(["base_model.model.", "module.", "_orig_mod."]) + k: v for k, v in weights.items()}
            if draw
            else weights
        )
    changed = {
        "lost": {k: v for k, v in weights.items() if k != name},
        "head": {k: v for k, v in weights.items() if k != "lm_head.weight"},
        "shape": weights | {name: torch.ones(7)},
        "nan": weights | {name: torch.full_like(weights[name], float("nan"))},
        "wide": weights | {name.replace("layers.", "layers.9"): weights[name].clone()},
    }
    return changed[how]


PEFT: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "rank pattern": {"rank_pattern": {"q_proj": 2}},
    "alpha pattern": {"alpha_pattern": {"q_proj": 32}},
    "dora": {"use_dora": True},
    "modules to save": {"modules_to_save": ["lm_head"]},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "lora bias": {"lora_bias": True},
    "bias all": {"bias": "all"},
    "bias lora only": {"bias": "lora_only"},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "tokens": {"trainable_token_indices": [5, 6]},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "alora": {"alora_invocation_tokens": [7]},
    "replicated": {"layer_replication": [[0, 2], [1, 3]]},
    "some layers": {"layers_to_transform": [0, 2]},
    "gaussian": {"init_lora_weights": "gaussian"},
    "pissa fast": {"init_lora_weights": "pissa_niter_4"},
    "loftq": {"init_lora_weights": "loftq"},
    "all linear": {"target_modules": "all-linear"},
}
"""settings of PEFT's own LoRA"""


def peft(draw: random.Random, folder: Path) -> Made:
    """An adapter that PEFT itself saved, of any of its kinds, with random factors; or of another base."""
    from peft import LoraConfig, get_peft_model

    name, other = draw.choice(sorted(PEFT)), draw.choice([None, None, None, "deeper", "wider"])
    tok = build_tokenizer()
    torch.manual_seed(draw.randrange(1_000))
    base = build_model(
        len(tok) + 8 * (other == "wider"), tok.eos_token_id, depth=tiny_run.DEPTH + 2 * (other == "deeper")
    )
    how = {
        "r": draw.choice([1, 2, 4]),
        "lora_alpha": draw.choice([1, 8]),
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
    } | PEFT[name]
    try:
        wrapped = get_peft_model(base, LoraConfig(**how))
    except (ImportError, ValueError, KeyError, AttributeError, RuntimeError, TypeError):
        wrapped, name = (
            get_peft_model(base, LoraConfig(**(how | {"init_lora_weights": True, "use_dora": False}))),
            "plain after all",
        )
    with torch.no_grad():
        for p in wrapped.parameters():
            if p.requires_grad:
                p.add_(0.05 * torch.randn_like(p))
    wrapped.save_pretrained(folder / "it")
    must = other == "deeper" and "layers" not in name
    return folder / "it", must, f"{name}, {other or 'the same'} base"


KINDS = {
    "model": model,
    "PEFT adapter": peft,
    "run": run,
    "comparison": comparison,
    "certificate": certificate,
    "fight": fight,
}
