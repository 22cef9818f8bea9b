"""What random draws are for. A run's seed and a purpose give a seed of its own (`session.seed_for`), so that a run that
goes on, and `shl eval`, draw what an unbroken run would.

The numbers stay as they are: another number is another draw, and older runs could not be gone on with. No two purposes
share a seed. PROMPTED and CHANCE share a number, but CHANCE is always followed by a round's.
"""

from __future__ import annotations

BASE = 0
"""the training prompts that the filter's bounds are drawn on; with CALIBRATION after it, the base's answers to them"""
CALIBRATION = 2
WALK = 1
"""a round's steered text, by round and pass: its prompts and its draws"""
HEAL = 2
"""a heal, by round: the fresh factors, what is held out, the order of its text"""
OWN_SAMPLES = 3
"""every model's own samples, which instruments read"""
PROMPTED = 4
"""text of the base told to be a pole"""
CHANCE = 4
"""directions without meaning that a student's shift is set beside, by round"""
UNSTEERED = 5
"""the control's text, by pass"""
LESSON = 6
"""the text of a student that learns step by step, by step"""
OWN_TEXT = 7
"""the base's own text that soft targets are learned on, by round"""
RANDOM_VECTOR = 8
"""a direction of the vector's size that means nothing"""
BROKEN = 9
"""text at doses that break the model, for the ablation, by try"""
PAIRS = 10
"""answers steered either way, which preferences are learned from"""
REJECTED = 11
"""the base's own text that the trait's text is preferred to"""
REFLECTIONS = 12
"""what the base says of itself as the pos pole"""
ON_POLICY = 13
"""the student's own text that a teacher reads, by step"""
SPLIT = 14
"""which rows of somebody's data are held out"""
FIGHT = 15
"""fine-tuning on those rows: the fresh factors, and their order"""
ISO_KL = 16
"""steered answers that the dose in nats is read on, by round"""
SWEEP = 17
"""text that steering is tried on before a run"""
CERTIFICATE = 20
"""the adapters that a certificate is tried on"""
NOISE = 21
"""an adapter of random factors"""
