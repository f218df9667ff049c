"""PPO and SAC of brax on the same tasks: controls from outside, in the run directories of online training."""
