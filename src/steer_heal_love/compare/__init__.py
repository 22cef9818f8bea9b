"""Every way of giving a model a trait, on the same model, persona, seeds and items, at equal drift or oddness.

In: a persona, a model, seeds. Out: a folder of cells (method × seed × strength), each measured with a run's own
instruments; `compare.json`; a plot of each method's frontier of trait against neutral_kl and own_excess; and
the trait that each method has at fixed budgets of neutral_kl and of own_excess, with who is ahead of the healed loop.

method     what a method is, and the registry: one file here with `@method(name, ...)`
bench      what the methods of one seed share: base, vector, steered and prompted text, training
study      the order of the work, what lies in the folder, going on after a kill
frontier   what a frontier has at a budget, with its interval over items × seeds
summary    cells to `compare.json`

An orchestrator beside `loop.py`, from whose pieces it is made: a seed's folder is an ordinary run folder, and
its rounds are the healed loop's.
"""

from steer_heal_love.compare.method import methods
from steer_heal_love.compare.study import run

__all__ = ["methods", "run"]
