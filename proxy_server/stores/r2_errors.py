"""What a store of an R2 bucket refuses, in R2's words.

Texts and codes are those of R2's Workers API (https://developers.cloudflare.com/r2/api/error-codes/).
"""

from __future__ import annotations

from proxy_server.declined import Declined
from proxy_server.stores.r2 import ObjectInfo

__all__ = [
    "AccessDenied",
    "BadDigest",
    "BadUpload",
    "EncryptionNotApplicable",
    "EntityTooLarge",
    "EntityTooSmall",
    "IncompleteBody",
    "InternalError",
    "InvalidArgument",
    "InvalidMaxKeys",
    "InvalidObjectName",
    "InvalidPart",
    "InvalidRange",
    "KeyRequired",
    "MetadataTooLarge",
    "NoSuchKey",
    "NoSuchUpload",
    "NotSupported",
    "PreconditionFailed",
    "R2Error",
    "WrongKey",
]


class R2Error(Declined):
    """An operation is refused. The runtime throws the message with the action before it and the code behind it.

    Attributes:
        status: of the HTTP response.
        code: R2's number.
    """

    status: int = 400
    code: int = 10001
    text: str = ""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(self.text if message is None else message)


class InternalError(R2Error):
    status, code, text = 500, 10001, "We encountered an internal error. Please try again."


class AccessDenied(R2Error):
    status, code = 403, 10003


class NotSupported(R2Error):
    """Something that R2 has and this server has not. The code is that of an argument that is not valid."""

    status, code = 501, 10029


class KeyRequired(R2Error):
    """Cloudflare documents no codes for what is wrong with a key. The texts of these three are those of S3."""

    status, code = 400, 10029
    text = (
        "The object was stored using a form of Server Side Encryption. "
        "The correct parameters must be provided to retrieve the object."
    )


class WrongKey(R2Error):
    status, code = 403, 10003
    text = "The provided encryption parameters did not match the ones used originally."


class EncryptionNotApplicable(R2Error):
    status, code, text = 400, 10029, "The encryption parameters are not applicable to this object."


class NoSuchKey(R2Error):
    status, code, text = 404, 10007, "The specified key does not exist."


class EntityTooSmall(R2Error):
    status, code = 400, 10011
    text = "Your proposed upload is smaller than the minimum allowed object size."


class MetadataTooLarge(R2Error):
    status, code, text = 400, 10012, "Your metadata headers exceed the maximum allowed metadata size."


class IncompleteBody(R2Error):
    status, code = 400, 10013
    text = "You did not provide the number of bytes specified by the Content-Length HTTP header."


class InvalidObjectName(R2Error):
    status, code, text = 400, 10020, "The specified object name is not valid."


class InvalidMaxKeys(R2Error):
    status, code, text = 400, 10022, "MaxKeys params must be positive integer <= 1000."


class NoSuchUpload(R2Error):
    status, code, text = 404, 10024, "The specified multipart upload does not exist."


class InvalidPart(R2Error):
    status, code, text = 400, 10025, "One or more of the specified parts could not be found."


class InvalidArgument(R2Error):
    status, code, text = 400, 10029, "Metadata missing or invalid"


class PreconditionFailed(R2Error):
    """Carries the object on which the conditions do not hold, where there is one."""

    status, code, text = 412, 10031, "At least one of the pre-conditions you specified did not hold."

    def __init__(self, info: ObjectInfo | None = None) -> None:
        super().__init__()
        self.info = info


class BadDigest(R2Error):
    status, code = 400, 10037

    def __init__(self, name: str, provided: bytes, calculated: bytes) -> None:
        super().__init__(
            f"The {name} checksum you specified did not match what we received.\n"
            f"You provided a {name} checksum with value: {provided.hex()}\n"
            f"Actual {name} was: {calculated.hex()}"
        )


class InvalidRange(R2Error):
    status, code, text = 416, 10039, "The requested range is not satisfiable"


class BadUpload(R2Error):
    status, code, text = 400, 10048, "There was a problem with the multipart upload."


class EntityTooLarge(R2Error):
    status, code, text = 400, 100100, "Your proposed upload exceeds the maximum allowed object size."
