"""The images engine: what the `images` binding does to pixels, on libvips. It knows no RPC and no HTTP.

`probe` answers `.info()`, `check` says whether a file may be kept, `media_type` what it is, and `render` does
`.input().transform().draw().output()` in one go; everything else serves these. Files, from the ground floor up:
errors, colors, fields, options (the JSON, checked), geometry and work (arithmetic), stopping, picture, sources and text
(bytes to pixels), transforms and drawing (pixels to pixels), encoding (pixels to bytes), rendering.
"""

from .encoding import Output, Rendered
from .errors import ImagingError
from .rendering import Source, render
from .sources import HEAD_BYTES, Probed, check, media_type, probe
from .stopping import Stop, StoppedError
from .text import Text

__all__ = [
    "HEAD_BYTES",
    "ImagingError",
    "Output",
    "Probed",
    "Rendered",
    "Source",
    "Stop",
    "StoppedError",
    "Text",
    "check",
    "media_type",
    "probe",
    "render",
]
