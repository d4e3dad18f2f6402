"""From video files to clips: `load_clips` gives the views of a model, `open_video` frames, `write_video` a file."""

from tubelet.data.clips import Clips, list_videos, load_clips
from tubelet.data.video import VideoInfo, VideoReader, open_video
from tubelet.data.write import write_video

__all__ = ["Clips", "VideoInfo", "VideoReader", "list_videos", "load_clips", "open_video", "write_video"]
