"""`python -m steer_heal_love` is `shl`, where it is on the path and not installed."""

from steer_heal_love.cli import main

if __name__ == "__main__":
    main()
