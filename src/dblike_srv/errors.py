"""What a site answers no with.

SiteError
├── Invalid             the request means nothing valid; `field` says where          422
├── NotFound            not there, or not yours: the two look the same               404
├── Conflict            at odds with what is here                                    409
├── Gone                the cursor or upload is of no use here: start over           410
├── PreconditionFailed  If-Match or If-None-Match does not hold                      412
├── TooLarge            above a limit                                                413
├── QuotaExceeded       above the user's quota                                       507
├── NoSpace             the site's disk is full                                      507
└── Busy                try again after `retry_after` seconds                        503
    └── Unreachable     the database does not answer; for the administrator's eyes
"""

from __future__ import annotations


class SiteError(Exception):
    """Root of the errors that a request may meet; nothing was changed."""

    def __init__(self, detail: str, *, field: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field


class Invalid(SiteError):
    """The request means nothing valid."""


class NotFound(SiteError):
    """Not there, or not yours."""


class Conflict(SiteError):
    """At odds with what is here; `offset` is where an upload stands."""

    def __init__(self, detail: str, *, field: str = "", offset: int | None = None) -> None:
        super().__init__(detail, field=field)
        self.offset = offset


class Gone(SiteError):
    """A cursor or an upload that is of no use here: start over."""


class PreconditionFailed(SiteError):
    """If-Match or If-None-Match does not hold."""


class PreconditionRequired(SiteError):
    """What has to be said with If-Match was not."""


class TooLarge(SiteError):
    """Above a limit."""


class QuotaExceeded(SiteError):
    """Above the user's quota."""


class NoSpace(SiteError):
    """The site's disk is full: another site may have room, and this one later."""

    retry_after = 300.0


class Busy(SiteError):
    """The site can't do it now."""

    def __init__(self, detail: str, *, retry_after: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Unreachable(Busy):
    """The database can't be used: why, and what to do."""
