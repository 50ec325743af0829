"""Run directories and checkpoints, and which run may resume from them."""
