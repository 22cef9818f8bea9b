"""KL(reference‖student): mass-covering; pays where the student stops saying what the reference would."""

from steer_heal_love.ground.divergence import forward_kl
from steer_heal_love.heal import divergences

divergences.register("forward_kl", forward_kl)
