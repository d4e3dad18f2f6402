"""Opening a file by PyAV so that no file, however damaged, makes it take the machine's memory or read anything else."""

from __future__ import annotations

import os
import re

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from tubelet.data.timeline import PacketTable, Timeline, build_timeline
from tubelet.errors import VideoError

DECODE_ERRORS = (av.FFmpegError, ValueError, OverflowError, MemoryError)

MAX_PIXELS = 2**26
"""The largest picture that is decoded, 8192 x 8192: a damaged header may declare any size."""

# The demuxers of video files. FFmpeg also has ones for text, playlists and network streams, which have no place here.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "gif", "mpegts", "mpeg", "mpegvideo", "m4v", "flv", "live_flv",
    "asf", "ogg", "h264", "hevc", "obu", "av1", "ivf", "vc1", "mjpeg", "mxf", "nut", "rm", "dv", "wtv", "apng", "webp",
    "yuv4mpegpipe", "png_pipe", "jpeg_pipe", "webp_pipe", "bmp_pipe",
    "mp3", "wav", "flac", "aac",  # to say that they hold no video
)  # fmt: skip

# Containers whose header has the duration, or the number of frames; of others FFmpeg guesses it by what is there.
WITH_DURATION = ("matroska,webm", "avi", "flv")
FEW = 2.5  # frames that rounded times may make up

# Containers that do not store when a frame is shown; FFmpeg guesses, wrongly where there are B-frames or after a seek.
WITHOUT_PRESENTATION_TIMES = ("avi", "mpeg", "h264", "hevc", "m4v", "mpegvideo")


def open_container(path: str) -> InputContainer:
    """Raises VideoError with the reason where FFmpeg cannot open the file as a video."""
    if not os.path.exists(path):
        raise VideoError(f"{path}: no such file")
    if not os.path.isfile(path):
        raise VideoError(f"{path}: not a file; a video file is needed")
    if os.path.getsize(path) == 0:
        raise VideoError(f"{path}: the file is empty")
    options = {"max_pixels": str(MAX_PIXELS), "protocol_whitelist": "file", "format_whitelist": ",".join(CONTAINERS)}
    try:
        return av.open(path, options=options)
    except DECODE_ERRORS as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, av.ArgumentError):
            reason = "no video container"  # what FFmpeg says of a format that is not in the list
        raise VideoError(f"{path}: not a video file that can be read ({reason})") from None


def first_video_stream(container: InputContainer, path: str) -> VideoStream:
    """The first stream of moving pictures (the cover picture of a song is none), set up for decoding."""
    cover = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams}))
        raise VideoError(f"{path}: holds no video" + (f", only {kinds}" if kinds else ""))
    stream = streams[0]
    if stream.codec_context is None:
        raise VideoError(f"{path}: there is no decoder for its video")
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    stream.thread_type = "AUTO"
    return stream


def list_frames(container: InputContainer, stream: VideoStream, path: str) -> Timeline:
    """When each frame is shown, by reading all packets and decoding none. Raises VideoError if there is none."""
    size = os.path.getsize(path)
    listed = PacketTable()
    try:
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                listed.add(packet.pts, packet.dts, packet.duration, packet.is_keyframe)
            # A packet takes a byte at least; more of them than bytes come from a damaged table and go on for hours.
            if len(listed) > size:
                break
    except DECODE_ERRORS:
        pass  # what was listed before the damage stands
    name = container.format.name
    stored_order = name in WITHOUT_PRESENTATION_TIMES and (name != "avi" or bool(stream.codec_context.has_b_frames))
    if not len(listed):
        raise VideoError(f"{path}: its video stream holds no frame")
    rate = float(stream.average_rate) if stream.average_rate else None
    return build_timeline(listed, time_base=float(stream.time_base or 1), rate=rate, stored_order=stored_order)


def missing_at_the_end(container: InputContainer, stream: VideoStream, timeline: Timeline) -> int:
    """About how many frames the file lacks by the duration in its header; 0 where that is not known or hardly differs.

    The longest time between two frames is the measure: where the rate varies, the last frame may be shown for long.
    """
    name, seconds = container.format.name, timeline.seconds()
    if name not in WITH_DURATION or len(timeline) < 2 or not (timeline.seekable or name == "avi"):
        return 0
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))  # of Matroska
    if tag:
        promised = 3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3])
    elif name == "avi":  # its duration is what the file has
        promised = stream.frames * timeline.time_base
    elif container.duration is not None and len(container.streams) == 1:  # otherwise it may be that of the sound
        promised = container.duration / av.time_base
    else:
        return 0
    lacking = promised - int(timeline.stamps[-1]) * timeline.time_base - 1 / timeline.fps
    return round(lacking * timeline.fps) if lacking > FEW * float(seconds.diff().max()) else 0
