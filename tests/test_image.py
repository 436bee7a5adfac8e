from __future__ import annotations

import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import workers
from workers import image
from workers.errors import ImageError
from workers.image import Picture, decode

PICTURE = np.arange(12 * 20 * 3, dtype=np.uint8).reshape(12, 20, 3)
JPEG = cv2.imencode(".jpg", PICTURE)[1].tobytes()
PNG = cv2.imencode(".png", PICTURE)[1].tobytes()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def claiming_png(height: int, width: int) -> bytes:
    """A small PNG whose header claims a size that its data does not have."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def claiming_jpeg(height: int, width: int) -> bytes:
    """A JPEG whose frame header is overwritten."""
    at = JPEG.index(b"\xff\xc0")
    return JPEG[: at + 5] + struct.pack(">HH", height, width) + JPEG[at + 9 :]


def opencv(payload: bytes) -> Picture:
    """The picture as OpenCV decodes it when nobody asks for anything."""
    picture = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture.view(np.uint8)


def reason(payload: bytes, encoding: str, shape: list[int], stride: int | None = None) -> str:
    with pytest.raises(ImageError) as caught:
        decode(payload, encoding, shape, stride)
    assert caught.value.reason in image.REASONS
    assert caught.value.detail
    return caught.value.reason


def test_png_is_decoded_exactly() -> None:
    assert np.array_equal(decode(PNG, "png", [12, 20, 3]), PICTURE)


def test_jpeg_is_decoded_as_opencv_does() -> None:
    expected = opencv(JPEG)
    assert np.array_equal(decode(memoryview(JPEG), "jpeg", [12, 20]), expected)


def test_orientation_tags_do_not_turn_the_frame() -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + JPEG[2:]
    assert opencv(turned).shape == (20, 12, 3), "the tag is not read"
    assert decode(turned, "jpeg", [12, 20]).shape == (12, 20, 3)


def test_bgr8_is_a_view() -> None:
    payload = bytearray(PICTURE.tobytes())
    picture = decode(payload, "bgr8", [12, 20, 3])
    assert np.array_equal(picture, PICTURE)
    payload[0] ^= 0xFF
    assert picture[0, 0, 0] == PICTURE[0, 0, 0] ^ 0xFF


@pytest.mark.parametrize("last_row", ["padded", "bare"])
def test_stride(last_row: str) -> None:
    padded = np.zeros((12, 64), np.uint8)
    padded[:, :60] = PICTURE.reshape(12, 60)
    payload = padded.tobytes() if last_row == "padded" else padded.tobytes()[:-4]
    assert np.array_equal(decode(payload, "bgr8", [12, 20, 3], 64), PICTURE)


def test_mono8_is_a_flat_view() -> None:
    grey = PICTURE[:, :, 0]
    assert np.array_equal(decode(grey.tobytes(), "mono8", [12, 20, 1]), grey)


def test_bayer_begins_red_green() -> None:
    mosaic = np.zeros((8, 8), np.uint8)
    mosaic[0::2, 0::2] = 200
    blue, green, red = decode(mosaic.tobytes(), "bayer_rg8", [8, 8])[4, 4]
    assert (int(blue), int(green), int(red)) == (0, 0, 200)


@pytest.mark.parametrize(
    ("payload", "encoding", "shape", "expected"),
    [
        (b"", "jpeg", [12, 20], "payload_empty"),
        (b"", "bgr8", [12, 20, 3], "payload_empty"),
        (b"GIF89a", "jpeg", [12, 20], "not_an_image"),
        (b"\xff", "jpeg", [12, 20], "not_an_image"),
        (PNG, "jpeg", [12, 20], "not_an_image"),
        (JPEG, "png", [12, 20], "not_an_image"),
        (JPEG, "jpeg", [20, 12], "shape_mismatch"),
        (PNG, "png", [12, 21], "shape_mismatch"),
        (JPEG, "jpeg", [12], "shape_mismatch"),
        (JPEG, "jpeg", [12, 20, 2], "shape_mismatch"),
        (JPEG, "jpeg", [0, 20], "shape_mismatch"),
        (JPEG, "jpeg", [-12, -20], "shape_mismatch"),
        (JPEG, "jpeg", [1 << 20, 1 << 20], "too_many_pixels"),
        (JPEG[:-30], "jpeg", [12, 20], "truncated"),
        (JPEG[:10], "jpeg", [12, 20], "truncated"),
        (JPEG[:2] + b"\xff\xe0\x00\x00" * 100, "jpeg", [12, 20], "truncated"),
        (b"\xff\xd8" + b"\xff" * 5000, "jpeg", [12, 20], "truncated"),
        (PNG[:-12], "png", [12, 20], "truncated"),
        (PNG[:20], "png", [12, 20], "truncated"),
        (PNG.replace(b"IDAT", b"IDAX"), "png", [12, 20], "decode_failed"),
        (bytes(11), "mono8", [3, 4], "shape_mismatch"),
        (bytes(13), "mono8", [3, 4], "shape_mismatch"),
        (bytes(12), "mono8", [3, 4, 3], "shape_mismatch"),
        (bytes(12), "bayer_rg8", [2, 6], "shape_mismatch"),
        (bytes(36), "bgr8", [3, 4], ""),
        (bytes(12), "yuv422", [3, 4], "encoding_unknown"),
    ],
)
def test_malformed(payload: bytes, encoding: str, shape: list[int], expected: str) -> None:
    if expected:
        assert reason(payload, encoding, shape) == expected
    else:
        decode(payload, encoding, shape)


def test_stride_below_the_row_is_refused() -> None:
    assert reason(bytes(200), "mono8", [10, 20], 10) == "shape_mismatch"
    assert reason(bytes(200), "mono8", [10, 20], -20) == "shape_mismatch"


@pytest.mark.parametrize("bomb", [claiming_png(20000, 20000), claiming_jpeg(20000, 20000)], ids=["png", "jpeg"])
@pytest.mark.parametrize("declared", [[12, 20], [20000, 20000]], ids=["small", "honest"])
def test_image_bombs_are_refused_without_decoding(bomb: bytes, declared: list[int]) -> None:
    encoding = "png" if bomb[0] == 0x89 else "jpeg"
    tracemalloc.start()
    try:
        found = reason(bomb, encoding, declared)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == ("too_many_pixels" if declared[0] == 20000 else "shape_mismatch")
    assert peak < 1 << 20


def test_opencv_itself_refuses_what_is_over_the_limit() -> None:
    side = int(image.pixel_limit() ** 0.5) + 1
    with pytest.raises(cv2.error, match="pixels"):
        cv2.imdecode(np.frombuffer(claiming_png(side, side), np.uint8), cv2.IMREAD_COLOR)


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != workers.PIXELS_VARIABLE}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | environment,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_importing_cv2_first_is_said_loudly() -> None:
    ended = python("import cv2; import workers.image")
    assert ended.returncode != 0
    assert f"set {workers.PIXELS_VARIABLE}=" in ended.stderr


def test_the_limit_can_be_set_from_outside() -> None:
    ended = python("import workers.image as i; print(i.pixel_limit())", **{workers.PIXELS_VARIABLE: "1234"})
    assert ended.stdout.strip() == "1234"


@given(st.binary(max_size=200), st.sampled_from(["jpeg", "png", "bgr8", "mono8", "bayer_rg8"]))
def test_noise_is_decoded_or_refused(payload: bytes, encoding: str) -> None:
    try:
        decode(payload, encoding, [3, 4])
    except ImageError as error:
        assert error.reason in image.REASONS


@given(st.data())
def test_damaged_files_are_decoded_or_refused(data: st.DataObject) -> None:
    original = data.draw(st.sampled_from([JPEG, PNG]))
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    encoding = "jpeg" if original is JPEG else "png"
    try:
        picture: Picture = decode(bytes(damaged), encoding, [12, 20])
        assert picture.shape == (12, 20, 3)
    except ImageError as error:
        assert error.reason in image.REASONS


def test_load_reads_other_formats_and_names_the_file(tmp_path: Path) -> None:
    good, bad, none = tmp_path / "good.bmp", tmp_path / "bad.jpg", tmp_path / "none.png"
    good.write_bytes(cv2.imencode(".bmp", PICTURE)[1].tobytes())
    bad.write_bytes(JPEG[:-30])
    assert np.array_equal(image.load(good), PICTURE)
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        image.load(bad)
    with pytest.raises(ImageError, match=r"none\.png"):
        image.load(none)


def memory_of_decoding(payload: bytes) -> int:
    """Most bytes of memory that a process of its own takes on top while it tries to decode."""
    code = (
        "import sys, threading, psutil, workers; from workers.image import decode\n"
        "me = psutil.Process(); decode_ = threading.Thread(target=lambda: attempt())\n"
        "def attempt():\n"
        "    try: decode(sys.stdin.buffer.read(), 'png', [24, 32])\n"
        "    except Exception as error: print(error, file=sys.stderr)\n"
        "before = most = me.memory_info().rss; decode_.start()\n"
        "while decode_.is_alive(): most = max(most, me.memory_info().rss); decode_.join(0.005)\n"
        "print(most - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=payload, capture_output=True, timeout=100, check=True)
    assert done.stderr, "it was decoded"
    return int(done.stdout)


@pytest.mark.parametrize("length", [1 << 30, (1 << 32) - 1])
def test_a_png_whose_chunk_claims_to_be_long_takes_no_memory(length: int) -> None:
    # OpenCV takes what the chunk asks for before it looks whether that is there: 4 GB for a file of 80 bytes.
    header = struct.pack(">IIBBBBB", 32, 24, 8, 2, 0, 0, 0)
    start, end = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header), chunk(b"IEND", b"")
    bomb = struct.pack(">I", length) + b"IDATabcd"
    assert memory_of_decoding(start + bomb + end) < 64 << 20
    assert memory_of_decoding(start + end + bomb) < 64 << 20


def test_what_stands_behind_the_end_of_a_png_is_not_looked_at() -> None:
    assert np.array_equal(decode(PNG + bytes(100), "png", [12, 20, 3]), PICTURE)


def test_a_jpeg_of_many_scans_is_not_decoded() -> None:
    # Each scan is a pass over the whole picture, even an empty one of a few bytes.
    progressive = cv2.imencode(".jpg", PICTURE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert np.array_equal(decode(progressive, "jpeg", [12, 20]), opencv(progressive))
    last = progressive.rindex(b"\xff\xda")
    bomb = progressive[:-2] + progressive[last : last + 10] * 1000 + b"\xff\xd9"
    assert reason(bomb, "jpeg", [12, 20]) == "too_many_scans"
    assert reason(memoryview(bomb), "jpeg", [12, 20]) == "too_many_scans"  # type: ignore[arg-type]
