"""A recording of both sides of a call as Ogg/Opus: small enough to travel inside a report."""

from __future__ import annotations

import io
from pathlib import Path

import av

_BIT_RATE = 24_000
_RATE_HZ = 48_000


def ogg_opus(wav: Path) -> bytes:
    """The sound of ``wav``, channels kept, compressed.

    Raises ValueError if the file holds no sound; a caller that was stopped may leave one.
    """
    out = io.BytesIO()
    try:
        with av.open(str(wav)) as source, av.open(out, "w", format="ogg", options={"fflags": "+bitexact"}) as sink:
            layout = source.streams.audio[0].layout.name
            stream = sink.add_stream("libopus", rate=_RATE_HZ, layout=layout)
            stream.bit_rate = _BIT_RATE
            resampler = av.AudioResampler(format="s16", layout=layout, rate=_RATE_HZ, frame_size=_RATE_HZ // 50)
            for frame in (*source.decode(audio=0), None):
                for ready in resampler.resample(frame):
                    sink.mux(stream.encode(ready))
            sink.mux(stream.encode(None))
    except (av.FFmpegError, IndexError) as exc:
        msg = f"{wav}: no sound in it: {exc}"
        raise ValueError(msg) from exc
    return out.getvalue()
