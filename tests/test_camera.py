"""A camera against a broker in the same process, over every transport: what is sent ends settled, whatever breaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import cv2
import numpy as np
import pytest
import zmq
from structlog.testing import capture_logs

from broker.wire import COPY_THRESHOLD, Accepted, Frame, Key, encode
from clients.camera import Camera
from clients.encoding import encode_image, picture_shape
from clients.errors import CameraError, CameraTimeout, ImageError
from clients.fake import FakeBroker
from clients.held import Ended

Context = zmq.Context[zmq.Socket[bytes]]
IMAGE = np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3)
PATIENCE = 15.0


def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait for `condition`, within a deadline."""
    end = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end, f"{what} did not come within {PATIENCE} s"
        pause.wait(0.005)


@pytest.fixture
def address(endpoint: Callable[[str], str]) -> str:
    return endpoint("frontend")


@pytest.fixture
def broker(context: Context, address: str) -> Iterator[FakeBroker]:
    with FakeBroker(address, context) as broker:
        yield broker


def camera(broker: FakeBroker, context: Context, **options: object) -> Camera:
    return Camera("cam1", endpoint=broker.endpoint, context=context, **options)  # type: ignore[arg-type]


def keep_open(frame: Frame) -> None:
    return None


def test_a_broker_that_does_not_answer_is_told_of(broker: FakeBroker, context: Context) -> None:
    broker.judge = keep_open
    with capture_logs() as logs, camera(broker, context, patience=0.8, deadline=60.0) as cam:
        cam.send(IMAGE)
        until(lambda: broker.frames, "the frame")
        broker.stop()
        until(lambda: logs, "a warning")
        broker.judge = lambda frame: "complete"
        broker.start()
        until(lambda: len(logs) > 1, "a word that it is back")
    where = {"camera": "cam1", "endpoint": broker.endpoint, "logger_name": "clients.link"}
    assert logs[0] == where | {"event": "no broker answers", "log_level": "warning", "frames_held": 1}
    assert (logs[1]["event"], logs[1]["log_level"]) == ("the broker answers again", "info")


def test_what_is_left_at_the_end_is_called_what_it_is(address: str, context: Context) -> None:
    with capture_logs() as logs:
        cam = Camera("cam1", endpoint=address, context=context).open()
        cam.skip("no_part")
        assert not cam.reached and (cam.stats.untold, cam.stats.unsettled) == (1, 0)
        cam.close(timeout=0.0)
    (one,) = [log for log in logs if log["log_level"] == "warning"]
    assert (one["event"], one["untold"]) == ("closed with skips that the broker was not told of", 1)


# --- the normal course -----------------------------------------------------------------------------------------------


def test_frames_arrive_and_settle(broker: FakeBroker, context: Context) -> None:
    with camera(broker, context) as cam:
        keys = [cam.send(IMAGE, part=f"p{number}") for number in range(20)]
        assert cam.flush(PATIENCE)
        stats = cam.stats
    assert keys == [Key("cam1", cam.boot, seq) for seq in range(20)]
    assert [frame.header.key for frame in broker.frames] == keys
    assert [frame.header.part for frame in broker.frames] == [f"p{number}" for number in range(20)]
    assert (stats.sent, stats.accepted, stats.complete, stats.unsettled) == (20, 20, 20, 0)
    assert stats.connected and stats.latency_p50 is not None and stats.latency_p99 is not None
    assert 0 < stats.latency_p50 <= stats.latency_p99 < PATIENCE


def test_the_payload_is_what_the_header_says(broker: FakeBroker, context: Context) -> None:
    grey = IMAGE[:, :, 0]
    png = cv2.imencode(".png", IMAGE)[1].tobytes()
    with camera(broker, context, deadline=3.0) as cam:
        cam.send(IMAGE)
        cam.send(IMAGE, encoding="bgr8", captured_at=time.monotonic() - 0.5)
        cam.send(grey)
        cam.send(png)
        assert cam.flush(PATIENCE)
    jpeg, raw, mono, file = broker.frames
    assert (jpeg.header.encoding, jpeg.header.shape) == ("jpeg", [24, 32, 3])
    assert picture_shape(jpeg.payload) == ("jpeg", [24, 32, 3])
    assert (raw.header.encoding, raw.payload) == ("bgr8", IMAGE.tobytes())
    assert raw.header.age >= 0.5 and raw.header.budget == 3.0
    assert (mono.header.encoding, mono.header.shape, mono.payload) == ("mono8", [24, 32], grey.tobytes())
    assert (file.header.encoding, file.payload) == ("png", png)
    assert all(frame.header.len == len(frame.payload) for frame in broker.frames)


def test_large_frames_arrive_whole(broker: FakeBroker, context: Context) -> None:
    large = np.random.default_rng(1).integers(0, 256, (600, 800, 3), np.uint8)
    assert large.nbytes > COPY_THRESHOLD
    frozen = large.copy()
    frozen.flags.writeable = False
    with camera(broker, context) as cam:
        cam.send(large, encoding="bgr8")
        expected = large.tobytes()
        large[:] = 0  # the caller may use its buffer again at once
        cam.send(frozen, encoding="bgr8")
        assert cam.flush(PATIENCE)
    assert [frame.payload == expected for frame in broker.frames] == [True, True]


class TearingSocket(zmq.Socket[bytes]):
    """Its connection breaks in the middle of some pictures, as libzmq tells it: EAGAIN for a later segment."""

    pictures = count()

    def send(self, data: Any, flags: int = 0, *arguments: Any, **options: Any) -> Any:
        if len(data) > 1000 and next(TearingSocket.pictures) in (5, 17, 18, 40):
            raise zmq.Again()
        return super().send(data, flags, *arguments, **options)


class TearingContext(zmq.Context[TearingSocket]):
    _socket_class = TearingSocket


def test_a_connection_that_breaks_in_the_middle_of_a_message(broker: FakeBroker, context: Context) -> None:
    TearingSocket.pictures = count()
    with camera(broker, TearingContext.shadow(context)) as cam:
        keys = [cam.send(IMAGE, encoding="bgr8", timeout=PATIENCE) for _ in range(50)]
        assert cam.flush(PATIENCE)
        assert (cam.stats.complete, cam.stats.connected) == (50, True)
    arrived = [*broker.frames, *broker.repeats]
    assert {frame.header.key for frame in arrived} == set(keys)
    assert all(frame.payload == IMAGE.tobytes() for frame in arrived)


@pytest.mark.slow
def test_a_broker_that_comes_and_goes_under_load_costs_no_frame_and_no_process(
    broker: FakeBroker, context: Context
) -> None:
    """With ZMQ_IMMEDIATE libzmq aborts here, over ipc and tcp, and ends the whole test run."""
    settled: list[Key] = []
    keys: list[Key] = []
    with camera(broker, context, deadline=60.0, on_settled=lambda key, outcome, _: settled.append(key)) as cam:
        for restart in range(60):
            goal = len(settled) + 100
            while len(settled) < goal:
                keys.append(cam.send(IMAGE, encoding="bgr8", timeout=PATIENCE))
            if restart < 59:
                for _ in range(1000):  # much to read while the connection breaks
                    broker.say(*encode(Accepted(boot=cam.boot, seqs=[], credit=0)))
                broker.stop()
                broker.start()
        assert cam.flush(PATIENCE)
    assert sorted(settled) == keys


def test_outcomes_are_told(broker: FakeBroker, context: Context) -> None:
    outcomes = {0: "complete", 1: "incomplete", 2: "part_duplicate"}
    broker.judge = lambda frame: outcomes[frame.key.seq]
    told: list[tuple[int, str, float]] = []
    with camera(broker, context, on_settled=lambda key, outcome, s: told.append((key.seq, outcome, s))) as cam:
        for _ in range(3):
            cam.send(IMAGE)
        assert cam.flush(PATIENCE)
        stats = cam.stats
    assert [entry[:2] for entry in told] == [(0, "complete"), (1, "incomplete"), (2, "rejected: part_duplicate")]
    assert all(0 < seconds < PATIENCE for _, _, seconds in told)
    assert (stats.complete, stats.incomplete, stats.rejected) == (1, 1, {"part_duplicate": 1})


def test_accepted_frames_are_told_once_and_before_they_are_settled(broker: FakeBroker, context: Context) -> None:
    told: list[tuple[str, int]] = []
    with camera(
        broker,
        context,
        on_accepted=lambda key: told.append(("accepted", key.seq)),
        on_settled=lambda key, outcome, _: told.append((outcome, key.seq)),
    ) as cam:
        for _ in range(3):
            cam.send(IMAGE)
        assert cam.flush(PATIENCE)
    assert sorted(told) == [(word, seq) for word in ("accepted", "complete") for seq in range(3)]
    assert all(told.index(("accepted", seq)) < told.index(("complete", seq)) for seq in range(3))


def test_a_callback_that_fails_stops_nothing(broker: FakeBroker, context: Context) -> None:
    def fail(key: Key, outcome: str, seconds: float) -> None:
        raise RuntimeError("the caller's fault")

    with camera(broker, context, on_settled=fail) as cam:
        for _ in range(30):
            cam.send(IMAGE)
        assert cam.flush(PATIENCE)
        assert cam.stats.complete == 30


def test_many_threads_may_send(broker: FakeBroker, context: Context) -> None:
    with camera(broker, context) as cam:
        threads = [threading.Thread(target=lambda: [cam.send(IMAGE) for _ in range(25)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert cam.flush(PATIENCE)
    assert [frame.header.key.seq for frame in broker.frames] == list(range(100))


def test_bye_is_the_last_word(broker: FakeBroker, context: Context) -> None:
    with camera(broker, context) as cam:
        cam.send(IMAGE)
        cam.skip("operator")
    until(lambda: broker.byes, "BYE")
    assert (broker.byes[0].boot, broker.byes[0].last_seq) == (cam.boot, 1)
    with pytest.raises(CameraError, match="closed"):
        cam.send(IMAGE)
    with pytest.raises(CameraError, match="opened before"):
        cam.open()
    cam.close()


# --- credit ----------------------------------------------------------------------------------------------------------


def test_send_waits_for_credit(broker: FakeBroker, context: Context) -> None:
    broker.judge, broker.window = keep_open, 2
    with camera(broker, context) as cam:
        cam.send(IMAGE)
        cam.send(IMAGE)
        with pytest.raises(CameraTimeout, match="2 frames are unsettled"):
            cam.send(IMAGE, timeout=0.05)
        with pytest.raises(TimeoutError):
            cam.send(IMAGE, timeout=0.0)
        sender = threading.Thread(target=cam.send, args=[IMAGE])
        sender.start()
        until(lambda: len(broker.frames) == 2)
        broker.judge = lambda frame: "complete"
        broker.settle_open()
        sender.join(PATIENCE)
        assert not sender.is_alive()
        assert cam.flush(PATIENCE)
    assert [frame.header.key.seq for frame in broker.frames] == [0, 1, 2]


def test_try_send_never_waits_and_names_what_it_missed(broker: FakeBroker, context: Context) -> None:
    broker.judge, broker.window = keep_open, 1
    with camera(broker, context) as cam:
        assert cam.send(IMAGE).seq == 0
        assert [cam.try_send(IMAGE) for _ in range(3)] == [None] * 3
        until(lambda: len(broker.skips) == 3)
        broker.judge = lambda frame: "complete"
        broker.settle_open()
        key = None
        until(lambda: cam.stats.unsettled == 0)
        key = cam.try_send(IMAGE)
        assert key is not None and key.seq == 4
        assert cam.flush(PATIENCE)
        assert cam.stats.skipped == {"no_credit": 3}
    assert [(skip.key.seq, skip.reason) for skip in broker.skips] == [(seq, "no_credit") for seq in (1, 2, 3)]


def test_monitor_never_waits_and_keeps_the_newest(broker: FakeBroker, context: Context) -> None:
    with camera(broker, context, policy="monitor", deadline=1.0) as cam:
        for value in range(200):
            cam.send(np.full((4, 4), value, np.uint8))
        assert cam.flush(PATIENCE)
        stats = cam.stats
    values = [frame.payload[0] for frame in broker.frames]
    assert values[-1] == 199 and values == sorted(set(values))
    assert stats.superseded == 200 - len(values)
    assert [frame.header.key.seq for frame in broker.frames] == list(range(len(values)))
    assert {frame.header.policy for frame in broker.frames} == {"monitor"}


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_frame_over_the_limit_is_refused_here(broker: FakeBroker, context: Context) -> None:
    broker.max_frame = 1000
    with camera(broker, context) as cam:
        cam.send(IMAGE[:2, :2], encoding="bgr8")
        with pytest.raises(CameraError, match=r"2304 bytes \(bgr8\) is over the broker's limit of 1000"):
            cam.send(IMAGE, encoding="bgr8")
        assert cam.flush(PATIENCE)
        assert cam.stats.skipped == {"too_large": 1}
    assert [(skip.key.seq, skip.reason) for skip in broker.skips] == [(1, "too_large")]


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("unknown_camera", "has no such camera: add"),
        ("protocol", "same release"),
        ("policy_mismatch", "another policy"),
    ],
)
def test_a_refused_camera_says_why(broker: FakeBroker, context: Context, reason: str, text: str) -> None:
    broker.refuse = reason
    with camera(broker, context) as cam:
        with pytest.raises(CameraError, match=text):
            cam.send(IMAGE, timeout=PATIENCE)
        with pytest.raises(CameraError, match=text):
            cam.try_send(IMAGE)
        broker.refuse = ""
        until(lambda: cam.stats.connected)
        cam.send(IMAGE, timeout=PATIENCE)
        assert cam.flush(PATIENCE)


def test_a_conflict_is_given_time_to_pass(broker: FakeBroker, context: Context) -> None:
    """A camera that was killed and started again meets its own past for a second."""
    broker.refuse = "key_conflict"
    with camera(broker, context) as cam:
        until(lambda: len(broker.hellos) >= 3)
        broker.refuse = ""
        cam.send(IMAGE, timeout=PATIENCE)
        assert cam.flush(PATIENCE)


def test_a_standing_conflict_is_an_error(context: Context) -> None:
    broker = FakeBroker("inproc://conflict", context, refuse="key_conflict")
    error = pytest.raises(CameraError, match="another process publishes under this name")
    with broker, camera(broker, context) as cam, error:
        cam.send(IMAGE, timeout=PATIENCE)


def test_bytes_that_are_no_message_are_counted(broker: FakeBroker, context: Context) -> None:
    with camera(broker, context) as cam:
        cam.send(IMAGE)
        assert cam.flush(PATIENCE)
        for segments in ([b"\x12", b"\xc1"], [b"\xff", b""], [b"\x12"], [b"\x13", b"\x80"]):
            broker.say(*segments)
        broker.say(*encode(Accepted(boot=cam.boot, seqs=[77], credit=9)))
        until(lambda: cam.stats.malformed == 4 and cam.stats.unknown == 1)
        cam.send(IMAGE)
        assert cam.flush(PATIENCE)
        assert cam.stats.complete == 2


@pytest.mark.parametrize("name", ["", "Cam1", "a b", "x" * 65, "-a", "cam1\n"])
def test_names_that_no_line_file_takes_are_refused_at_once(name: str) -> None:
    with pytest.raises(CameraError, match="camera name"):
        Camera(name)


def test_an_endpoint_that_is_none_is_refused_at_once() -> None:
    for endpoint in ("7001", "tcp://nowhere", "carrier-pigeon://x"):
        with pytest.raises(CameraError, match="cannot talk to"), Camera("cam1", endpoint=endpoint):
            pass
    with pytest.raises(CameraError, match="deadline"):
        Camera("cam1", deadline=0.0)
    with pytest.raises(CameraError, match="not open"):
        Camera("cam1").send(IMAGE)


def test_without_a_broker_an_error_says_so(context: Context, address: str) -> None:
    with Camera("cam1", endpoint=address, context=context) as cam:
        with pytest.raises(CameraTimeout, match="no broker answered"):
            cam.send(IMAGE, timeout=0.05)
        with pytest.raises(CameraError, match="part's name"):
            cam.send(IMAGE, part="")
        assert cam.flush(0.0)


def test_a_context_that_ends_early_ends_the_camera_with_an_error() -> None:
    context: Context = zmq.Context()
    cam = Camera("cam1", endpoint="tcp://127.0.0.1:9", context=context).open()
    context.term()
    with pytest.raises(CameraError, match="cannot talk to"):
        cam.send(IMAGE, timeout=PATIENCE)
    cam.close()


def test_a_link_that_fails_says_so_instead_of_hanging(
    broker: FakeBroker, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No way is known to bring this about from outside: so the fault is put in by hand."""

    def fail(now: float) -> list[Ended]:
        raise RuntimeError("a mistake of ours")

    cam = camera(broker, context).open()
    monkeypatch.setattr(cam._holder, "check", fail)
    until(lambda: cam._link is not None and cam._link.failure)
    with pytest.raises(CameraError, match="a mistake of ours"):
        cam.send(IMAGE, timeout=PATIENCE)
    cam.close()


# --- what breaks -----------------------------------------------------------------------------------------------------


def test_a_camera_may_be_there_before_its_broker(context: Context, address: str) -> None:
    with Camera("cam1", endpoint=address, context=context) as cam:
        sender = threading.Thread(target=cam.send, args=[IMAGE])
        sender.start()
        with FakeBroker(address, context) as broker:
            sender.join(PATIENCE)
            assert not sender.is_alive()
            assert cam.flush(PATIENCE)
            assert len(broker.frames) == 1


def test_a_broker_restart_loses_nothing(broker: FakeBroker, context: Context) -> None:
    broker.judge = keep_open
    with camera(broker, context) as cam:
        first = [cam.send(IMAGE) for _ in range(5)]
        until(lambda: len(broker.frames) == 5)
        broker.stop()
        held = [cam.send(IMAGE) for _ in range(3)]  # credit is left: they wait here
        broker.judge = lambda frame: "complete"
        broker.start()
        assert cam.flush(PATIENCE)
        more = cam.send(IMAGE, timeout=PATIENCE)
        assert cam.flush(PATIENCE)
        stats = cam.stats
    again = [frame.header.key for frame in broker.repeats]
    fresh = [frame.header.key for frame in broker.frames[5:]]
    assert again[:5] == first and all(frame.header.again == 1 for frame in broker.repeats)
    # a frame may have gone to the dead connection before that was noticed: then it comes again, not for the first time
    assert sorted(again[5:] + fresh) == [*held, more]
    assert (stats.sent, stats.complete) == (9, 9)


def test_restarts_under_load_lose_nothing_and_end_nothing_twice(broker: FakeBroker, context: Context) -> None:
    ended: list[int] = []
    with camera(broker, context, on_settled=lambda key, outcome, seconds: ended.append(key.seq)) as cam:
        sender = threading.Thread(target=lambda: [cam.send(IMAGE) for _ in range(300)])
        sender.start()
        for share in (60, 120, 180):
            until(lambda share=share: len(ended) >= share)  # type: ignore[misc]
            broker.stop()
            broker.start()
        sender.join(PATIENCE)
        assert cam.flush(PATIENCE)
    assert sorted(ended) == list(range(300))


def test_a_broker_that_forgot_the_camera_is_greeted_again(broker: FakeBroker, context: Context) -> None:
    broker.judge = keep_open
    with camera(broker, context) as cam:
        cam.send(IMAGE)
        until(lambda: broker.frames)
        broker.judge = lambda frame: "complete"
        broker._cameras.clear()
        cam.send(IMAGE)
        assert cam.flush(PATIENCE)
        assert (cam.stats.sent, cam.stats.complete) == (2, 2)


def test_close_is_bounded_and_says_what_is_unsettled(broker: FakeBroker, context: Context) -> None:
    broker.judge = keep_open
    cam = camera(broker, context).open()
    cam.send(IMAGE)
    until(lambda: broker.frames)
    assert not cam.flush(0.05)
    cam.close(timeout=0.05)
    assert cam.stats.unsettled == 1 and not cam.stats.connected
    until(lambda: broker.byes, "BYE")


def test_nothing_is_left_behind(broker: FakeBroker, context: Context) -> None:
    before = threading.active_count()
    for _ in range(5):
        with camera(broker, context) as cam:
            cam.send(IMAGE)
    assert threading.active_count() == before


# --- encoding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_the_shape_of_a_file_is_read_from_its_header(extension: str, grey: bool) -> None:
    image = IMAGE[:, :, 0] if grey else IMAGE
    data = cv2.imencode(extension, image)[1].tobytes()
    encoded = encode_image(data)
    assert encoded.shape == list(image.shape)
    assert encoded.encoding == ("jpeg" if extension == ".jpg" else "png")
    assert encode_image(memoryview(bytearray(data))) == encoded


def test_progressive_jpegs_and_alpha_are_understood() -> None:
    progressive = cv2.imencode(".jpg", IMAGE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert picture_shape(progressive) == ("jpeg", [24, 32, 3])
    alpha = cv2.imencode(".png", np.zeros((5, 7, 4), np.uint8))[1].tobytes()
    assert picture_shape(alpha) == ("png", [5, 7, 4])


@pytest.mark.parametrize(
    ("image", "encoding", "text"),
    [
        (IMAGE.astype(np.float32), None, "dtype float32"),
        ([[1, 2]], None, "list"),
        (np.zeros((0, 4), np.uint8), None, "shape"),
        (np.zeros((4, 4, 4), np.uint8), None, "shape"),
        (IMAGE, "mono8", "bgr8"),
        (IMAGE[:, :, 0], "bgr8", "mono8 or bayer_rg8"),
        (b"", None, "neither JPEG nor PNG"),
        (b"GIF89a" + bytes(40), None, "neither JPEG nor PNG"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", None, "cut off"),
        (b"\xff\xd8" + b"\xff\xe0\x00\x00" * 9, None, "cut off"),
        (cv2.imencode(".png", IMAGE)[1].tobytes(), "jpeg", "the bytes are png, not jpeg"),
        (np.zeros((1, 70000, 3), np.uint8), "jpeg", "cannot encode"),
    ],
)
def test_images_that_cannot_be_sent(image: object, encoding: str | None, text: str) -> None:
    with pytest.raises(ImageError, match=text):
        encode_image(image, encoding)  # type: ignore[arg-type]
