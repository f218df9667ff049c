"""Pictures of a policy at work: a video and a strip of frames."""
