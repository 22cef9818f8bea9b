"""Whether the adapter that is exported gives the live model's logits: read again by this tool, and by PEFT where it is."""

from __future__ import annotations

import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from steer_heal_love import bake
from steer_heal_love.doctor import Finding, Patient, check
from steer_heal_love.doctor.update import drawn
from steer_heal_love.ground.hooks import adapted


@check("export", 13)
def export(p: Patient) -> Finding:
    update = drawn(p)
    with adapted(p.model, update.factors, update.scaling):
        live = [p.alone(s) for s in p.sequences[:2]]
    with tempfile.TemporaryDirectory() as folder:
        bake.save_peft(update, Path(folder), base_model=p.name)
        again = bake.load_peft(Path(folder))
        with adapted(p.model, again.factors, again.scaling):
            ours = p.kl_nats([p.alone(s) for s in p.sequences[:2]], live)
        if find_spec("peft") is None:
            found = p.same("export", "saved and read again", ours, UNLIKE)
            return Finding(
                "export", f"{found.seen}; PEFT is not installed, so not tried", found.verdict, found.do
            )
        theirs = p.kl_nats(by_peft(p, folder), live)
    return p.same("export", "saved, read again here and by PEFT", max(ours, theirs), UNLIKE)


UNLIKE = "the exported adapter is not the model that was measured: export merged weights instead"


def by_peft(p: Patient, folder: str) -> list[Tensor]:
    """The same states with the folder loaded by PEFT, which is taken off the model again."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one library about another
        wrapped = PeftModel.from_pretrained(p.model, folder)
    try:
        return [p.alone(s) for s in p.sequences[:2]]
    finally:
        wrapped.unload()
        p.model.eval().requires_grad_(False)
