"""Recognises files mistaken for checkpoints by their first bytes, with advice on each."""

from __future__ import annotations

WEB_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head")
STARTS = {
    b"version https://git-lfs": "a Git LFS pointer, not the checkpoint itself: run git lfs pull, or download the file",
    b"\x1f\x8b": "compressed with gzip: unpack it first",
    b"\xfd7zXZ\x00": "compressed with xz: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"\x89HDF": "an HDF5 file, as Keras saves: no StyleGAN2 checkpoint of a known kind is one",
    b"\x89PNG": "a picture (PNG)",
    b"\xff\xd8\xff": "a picture (JPEG)",
    b"{": "JSON text, as an error of a download is",
}


def described(data: bytes) -> str:
    """What a file mistaken for a checkpoint is, by its first bytes, and advice; "" if unknown."""
    if not data:
        return "empty: the download may have failed"
    start = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.lower().startswith(WEB_PAGES):
        return "a web page, not a checkpoint: the link leads to a page about the file, download the file itself"
    return next((what for first, what in STARTS.items() if start.startswith(first)), "")
