"""While its service is away, a data set logs what it waits for and for how long."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

import pytest

from rosacea_client.errors import IntegrityError, Unavailable
from rosacea_client.rpc.retry import MAX_ATTEMPTS, Patience

if TYPE_CHECKING:
    from pytest import LogCaptureFixture


class NoTime(Event):
    """Waits take no time."""

    def wait(self, timeout: float | None = None) -> bool:
        return False


def test_each_absence_is_logged_once_with_its_error_and_how_long_it_may_last(caplog: LogCaptureFixture) -> None:
    patience = Patience(3600.0, NoTime())
    away = Unavailable("nothing listens at 127.0.0.1:1")

    for _ in range(2):
        for _ in range(MAX_ATTEMPTS + 1):
            patience.wait(away)
        patience.renew()

    said = "nothing listens at 127.0.0.1:1; asking again for up to 3600 s"
    assert [record.getMessage() for record in caplog.records] == [said, said]


def test_the_error_is_raised_where_patience_is_at_an_end() -> None:
    with pytest.raises(Unavailable, match="nothing listens"):
        Patience(0.0, Event()).wait(Unavailable("nothing listens"))


def test_what_no_wait_can_mend_is_raised_at_once() -> None:
    with pytest.raises(IntegrityError, match="damaged"):
        Patience(60.0, Event()).wait(IntegrityError("damaged"))
