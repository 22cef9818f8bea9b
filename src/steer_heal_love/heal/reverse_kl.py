"""KL(student‖reference): mode-seeking; pays where the student says what the reference never would."""

from steer_heal_love.ground.divergence import reverse_kl
from steer_heal_love.heal import divergences

divergences.register("reverse_kl", reverse_kl)
