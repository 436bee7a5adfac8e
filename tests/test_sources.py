"""Sources of pictures: files in order, live streams that are cut and come back, errors that say what to do."""

from __future__ import annotations

import http.server
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from clients.errors import SourceError
from clients.fake import FakeCapture
from clients.live import LiveCapture, open_live, without_password
from clients.sources import DECODED, SENT_AS_IS, Shot, open_source, pictures_in
from clients.synthetic import SyntheticCamera

IMAGE = np.full((24, 32, 3), 90, np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten numbered pictures of three formats, and things that are none."""
    for number in range(10):
        extension = (".jpg", ".png", ".bmp")[number % 3]
        (tmp_path / f"part{number}{extension}").write_bytes(cv2.imencode(extension, IMAGE + number)[1].tobytes())
    (tmp_path / "part10.png").write_bytes(cv2.imencode(".png", IMAGE + 10)[1].tobytes())
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "part3.jpg").write_bytes(b"\xff\xd8 broken")
    (tmp_path / "part5.bmp").write_bytes(b"broken")
    (tmp_path / "deeper.jpg").mkdir()
    return tmp_path


def brightness(shot: Shot) -> int:
    image = shot.image
    array = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR) if isinstance(image, bytes) else image
    assert array is not None
    return round(float(np.mean(array)))


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_folder_comes_in_natural_order_and_what_is_broken_is_counted(folder: Path) -> None:
    source = open_source(str(folder))
    shots = list(source)
    assert [brightness(shot) - 90 for shot in shots] == [0, 1, 2, 4, 6, 7, 8, 9, 10]
    assert source.missed == 2
    assert not source.live
    assert isinstance(shots[0].image, bytes), "a JPEG is sent as it is"
    assert isinstance(shots[2].image, np.ndarray), "a BMP is decoded"
    assert [shot.captured_at for shot in shots] == sorted(shot.captured_at for shot in shots)


def test_files_may_loop(folder: Path) -> None:
    with open_source(str(folder / "part0.jpg"), loop=True) as source:
        assert len(list(itertools.islice(source, 5))) == 5
    assert len(list(open_source(str(folder / "part0.jpg")))) == 1


def test_a_video_comes_whole_and_may_loop(tmp_path: Path) -> None:
    path = tmp_path / "parts.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 24))
    for number in range(6):
        writer.write(IMAGE + 10 * number)
    writer.release()
    shots = list(open_source(str(path)))
    assert [round((brightness(shot) - 90) / 10) for shot in shots] == list(range(6))
    with open_source(str(path), loop=True) as source:
        assert len(list(itertools.islice(source, 14))) == 14


@pytest.mark.parametrize(("name", "pictures"), [("bottle-detection.gif", 45), ("bolt-multi-size-detection.gif", 37)])
def test_a_gif_comes_whole(testdata: Path, name: str, pictures: int) -> None:
    shots = list(open_source(str(testdata / "video" / name)))
    assert len(shots) == pictures
    assert isinstance(shots[0].image, np.ndarray) and shots[0].image.shape[2] == 3


def test_a_rate_spaces_the_pictures() -> None:
    """No timed assertion: the ticks are read from the source itself."""
    with open_source("synthetic:64x64", rate=200.0) as source:
        assert source.live
        times = [shot.captured_at for shot in itertools.islice(source, 6)]
    assert all(later - sooner > 0 for sooner, later in itertools.pairwise(times))
    assert times[-1] - times[0] >= 5 / 200 - 1 / 200


def test_closing_ends_the_wait_for_the_next_tick() -> None:
    source = open_source("synthetic:64x64", rate=0.001)
    shots: list[Shot] = []
    thread = threading.Thread(target=lambda: shots.extend(source))
    thread.start()
    while not shots and thread.is_alive():
        thread.join(0.01)
    source.close()
    thread.join(10)
    assert not thread.is_alive() and len(shots) == 1


def test_synthetic_parts_are_those_of_the_seed() -> None:
    with open_source("synthetic:96x80", seed=4) as source:
        assert not source.live, "without a rate it is as patient as a file"
        shots = list(itertools.islice(source, 2))
    camera = SyntheticCamera(4, size=(80, 96))
    for number, shot in enumerate(shots):
        assert isinstance(shot.image, np.ndarray)
        assert np.array_equal(shot.image, camera.part(number).image)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("", "no such file or folder; a source is a video"),
        ("nowhere/at/all.mp4", "no such file"),
        ("usb:front", "write usb:0"),
        ("synthetic:9x9", "WIDTHxHEIGHT"),
        ("synthetic:1x1x1", "WIDTHxHEIGHT"),
    ],
)
def test_what_is_no_source_is_refused(spec: str, text: str) -> None:
    with pytest.raises(SourceError, match=text):
        open_source(spec)


def test_files_without_a_picture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no picture in this folder"):
        open_source(str(tmp_path))
    for name in ("film.mp4", "one.jpg", "one.bmp", "none.png"):
        (tmp_path / name).write_bytes(b"" if name == "none.png" else b"not what it says")
    with pytest.raises(SourceError, match="no picture can be read"):
        list(open_source(str(tmp_path / "film.mp4")))
    with pytest.raises(SourceError, match="none of the 3 pictures"):
        list(open_source(str(tmp_path), loop=True))
    assert len(pictures_in(tmp_path)) == 3
    with pytest.raises(SourceError, match="rate"):
        open_source(str(tmp_path / "one.jpg"), rate=-1.0)


# --- live ------------------------------------------------------------------------------------------------------------


class Doors:
    """Opens one capture after the other and remembers them."""

    def __init__(self, *captures: FakeCapture) -> None:
        self.waiting = list(captures)
        self.opened: list[FakeCapture] = []

    def __call__(self) -> FakeCapture:
        capture = self.waiting.pop(0) if self.waiting else FakeCapture(0, opens=False)
        self.opened.append(capture)
        return capture


def taken(source: LiveCapture, enough: Callable[[list[Shot]], bool]) -> list[Shot]:
    shots: list[Shot] = []
    for shot in source:
        shots.append(shot)
        if enough(shots):
            source.close()
    return shots


def test_a_stream_that_is_cut_is_opened_again() -> None:
    doors = Doors(FakeCapture(3), FakeCapture(0, opens=False), FakeCapture(0), FakeCapture(4))
    source = LiveCapture(doors, "fake", back_off=0.001)
    shots = taken(source, lambda shots: doors.waiting == [] and brightness(shots[-1]) == 3)
    assert source.live and source.connections == 2
    assert len(shots) + source.missed == 7, "every picture was given out or is counted"
    assert all(capture.released for capture in doors.opened)


def test_stale_pictures_are_counted_not_queued() -> None:
    gates = {1: threading.Event(), 49: threading.Event()}

    class Gated(FakeCapture):
        """Its second and its last picture come when they are let in."""

        def read(self) -> tuple[bool, object]:  # type: ignore[override]
            if self.reads in gates:
                gates[self.reads].wait(10)
            return super().read()

    source = LiveCapture(Doors(Gated(50)), "fake", back_off=0.001)
    shots = iter(source)
    assert brightness(next(shots)) == 0
    gates[1].set()
    while source.missed < 47:
        assert not gates[49].wait(0.001)
    assert brightness(next(shots)) == 48
    gates[49].set()
    assert brightness(next(shots)) == 49
    source.close()
    assert list(shots) == []


def test_an_error_of_the_device_is_raised_where_pictures_are_waited_for() -> None:
    def broken() -> FakeCapture:
        raise cv2.error("the driver is gone")

    with pytest.raises(SourceError, match="the driver is gone"):
        list(LiveCapture(broken, "usb:0"))


def test_passwords_are_not_shown() -> None:
    assert without_password("rtsp://admin:pa55@10.0.0.7:554/live?x=1") == "rtsp://***@10.0.0.7:554/live?x=1"
    assert open_live("rtsp://admin:pa55@10.0.0.7/live", 0).name == "rtsp://***@10.0.0.7/live"
    assert without_password("http://10.0.0.7/a@b") == "http://10.0.0.7/a@b"


class Stream(http.server.BaseHTTPRequestHandler):
    """An MJPEG stream of eight pictures for each connection, and then it is cut."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in range(8):
            data = cv2.imencode(".jpg", IMAGE + 10 * number)[1].tobytes()
            head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data)
            self.wfile.write(head + data + b"\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test says what it saw."""


@pytest.fixture
def stream() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stream) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/camera.mjpg"
        server.shutdown()
        thread.join()


def test_a_real_stream_is_cut_and_comes_back(stream: str) -> None:
    if not any("FFMPEG" in cv2.videoio_registry.getBackendName(b) for b in cv2.videoio_registry.getStreamBackends()):
        pytest.skip("this OpenCV was built without FFMPEG")
    source = open_live(stream, 0.0)
    source._back_off = 0.001
    shots = taken(source, lambda shots: source.connections >= 3)
    assert all(isinstance(shot.image, np.ndarray) and shot.image.shape == IMAGE.shape for shot in shots)


def test_the_page_of_the_line_file_lists_every_form() -> None:
    page = (Path(__file__).parents[1] / "docs" / "line.md").read_text(encoding="utf-8")
    section = page.partition("## `[cameras.NAME]`")[2].partition("## `[models.NAME]`")[0]
    forms = [*SENT_AS_IS, *DECODED, "rtsp://…", "rtsps://…", "http://…", "https://…", "usb:0", "synthetic:1280x960"]
    assert [form for form in forms if f"`{form}`" not in section] == []
