"""While its service is away, a data set logs what it waits for and for how long."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

import pytest

from rosacea_client.data.feed import Patience
from rosacea_client.errors import Unavailable

if TYPE_CHECKING:
    from pytest import LogCaptureFixture


def test_each_absence_is_logged_once_with_its_error_and_how_long_it_may_last(caplog: LogCaptureFixture) -> None:
    patience = Patience(5.0, Event())
    away = Unavailable("nothing listens at 127.0.0.1:1")

    for _ in range(2):
        patience.wait(away)
    patience.renew()
    patience.wait(away)

    said = "nothing listens at 127.0.0.1:1; asking again for up to 5 s"
    assert [record.getMessage() for record in caplog.records] == [said, said]


def test_the_error_is_raised_where_patience_is_at_an_end() -> None:
    with pytest.raises(Unavailable, match="nothing listens"):
        Patience(0.0, Event()).wait(Unavailable("nothing listens"))
