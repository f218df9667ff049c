"""Algorithm 1: perturb, roll out, fit the critic, climb it, again."""
