"""The faces of one answer: a list that a notebook shows as a contact sheet."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, overload

from rosacea_client.results.face import Face

if TYPE_CHECKING:
    from typing import SupportsIndex

MOST_SHOWN = 64
SHOWN_PIXELS = 1024  # the sides of a sheet in a notebook, at most and about


class Faces(list[Face]):
    """List of faces, in order. A notebook shows the first 64 as a contact sheet; a slice is such a list too."""

    @overload
    def __getitem__(self, place: SupportsIndex, /) -> Face: ...
    @overload
    def __getitem__(self, place: slice, /) -> Faces: ...
    def __getitem__(self, place: SupportsIndex | slice, /) -> Face | Faces:
        return Faces(super().__getitem__(place)) if isinstance(place, slice) else super().__getitem__(place)

    def _repr_png_(self) -> bytes | None:
        if not self:
            return None
        from rosacea_client.results.grid import contact_sheet, sheet_png

        shown = self[:MOST_SHOWN]
        tile = min(max(shown[0].width, shown[0].height), SHOWN_PIXELS // math.ceil(math.sqrt(len(shown))))
        return sheet_png(contact_sheet(shown, tile=tile))
