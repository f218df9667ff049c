"""What a critic is good for: calibration, gradients and improvement on real rollouts, and runs side by side."""
