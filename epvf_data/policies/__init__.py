"""What a policy is. `spec` needs neither jax nor numpy, so that data can be read without them."""
