"""Pictures of a policy at work: a video and a strip of frames."""

from epvf_data.render.render import Film, RenderReport, render_episode, render_policy
from epvf_data.render.rows import render_row

__all__ = ["Film", "RenderReport", "render_episode", "render_policy", "render_row"]
