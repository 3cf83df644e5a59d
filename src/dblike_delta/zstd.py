"""Whole messages as zstd frames that say how large they are before anyone unpacks them."""

from __future__ import annotations

from typing import Final

import zstandard

from dblike_delta.errors import FormatError, LimitError

ENCODING: Final = "zstd"
"""Its name in Accept-Encoding and Content-Encoding."""
_LEVEL: Final = 3


def pack(data: bytes) -> bytes:
    """One frame."""
    return zstandard.ZstdCompressor(level=_LEVEL).compress(data)


def unpack(frame: bytes, largest: int) -> bytes:
    """What a frame holds.  Raises FormatError, and LimitError where it claims to hold more."""
    try:
        size = zstandard.get_frame_parameters(frame).content_size
        if size > largest:  # one that does not say its size claims the most there is
            raise LimitError(f"a frame of {size} bytes; the limit is {largest}", wanted=size)
        return zstandard.ZstdDecompressor().decompress(
            frame, max_output_size=size, read_across_frames=False, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise FormatError(f"no zstd frame: {error}") from None
