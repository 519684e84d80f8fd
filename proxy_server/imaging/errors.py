"""The one exception of the images engine, and Cloudflare's numbers for what can go wrong.

The numbers and their HTTP statuses are those of Cloudflare's documentation page "Errors" for Images, of the
Workers types (`ImagesError`) and of Miniflare's own images service, so that code which looks at `error.code`
behaves as it does there. Nothing here decides when an error is raised.
"""

from __future__ import annotations

from proxy_server.declined import Declined

BAD_OPTION = 9401  # an option with a value that is not valid
TOO_MANY_BYTES = 9402  # the image file is too large
NOT_AN_IMAGE = 9412  # the bytes are no image, or one that can't be turned into pixels (SVG)
TOO_MANY_PIXELS = 9413  # too large once decoded or resized, or of size 0
BROKEN_IMAGE = 9516  # decoding or encoding failed
UNSUPPORTED_TYPE = 9520  # an image, but of a kind that is not read
BAD_REQUEST = 9523  # a request that the runtime's own env.IMAGES never makes, or an internal failure
CONSUMED = 9525  # an image that was already drawn is used again

_STATUS = {
    BAD_OPTION: 400,
    TOO_MANY_BYTES: 413,
    NOT_AN_IMAGE: 415,
    TOO_MANY_PIXELS: 403,
    BROKEN_IMAGE: 422,
    UNSUPPORTED_TYPE: 415,
    BAD_REQUEST: 400,
    CONSUMED: 400,
}


class ImagingError(Declined):
    """An image, or what was asked of it, is refused.

    `code` is Cloudflare's number, `status` the HTTP status that belongs to it, and `str(error)` is the text
    `ERROR <code>: <message>` that the Workers runtime expects as the body of the response (it puts
    `IMAGES_TRANSFORM_` or `IMAGES_INFO_` before it).
    """

    code: int
    status: int

    def __init__(self, code: int, message: str, *, status: int | None = None) -> None:
        super().__init__(f"ERROR {code}: {message}")
        self.code = code
        self.status = _STATUS[code] if status is None else status
