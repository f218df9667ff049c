"""H.264 in mp4, as browsers and code forges play it, by PyAV, whose wheels bring the encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np

from epvf_data.errors import BackendError, extra
from epvf_data.render.picture import Image


@contextmanager
def encoder(path: Path, width: int, height: int, fps: int) -> Iterator[Callable[[Image], None]]:
    """Writes an mp4 file at `path`, one call a frame of uint8 [height, width, 3]; both must be even (yuv420p).

    Raises MissingPackageError where PyAV is not installed, BackendError where its FFmpeg has no H.264.
    """
    with extra("render"):
        import av
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        try:
            stream = container.add_stream("libx264", rate=fps, options={"crf": "20", "preset": "medium"})
        except ValueError as error:  # which av.codec.codec.UnknownCodecError is
            raise BackendError(
                "the FFmpeg of this PyAV has no encoder libx264; its own wheel brings it: "
                "`pip install --force-reinstall --only-binary av av`."
            ) from error
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, fps)

        def write(pixels: Image) -> None:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            for packet in stream.encode(frame):
                container.mux(packet)

        yield write
        for packet in stream.encode():
            container.mux(packet)
