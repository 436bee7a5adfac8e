"""The model workers: processes that pull jobs from the broker, look at the pictures and answer.

OpenCV reads its pixel limit when it is first imported, never later. It is set here, so that no order of imports inside
this package can leave a worker open to image bombs.
"""

import os
import sys
from typing import Final

#: Environment variable that OpenCV reads: the largest picture it decodes, in pixels.
PIXELS_VARIABLE: Final = "OPENCV_IO_MAX_IMAGE_PIXELS"
#: Largest picture that is decoded unless that variable says otherwise, in pixels.
DEFAULT_PIXELS: Final = 64 << 20

if PIXELS_VARIABLE not in os.environ:
    if "cv2" in sys.modules:
        raise ImportError(
            f"cv2 was imported before workers and without {PIXELS_VARIABLE}, so it would decode pictures of any size: "
            f"import workers first, or set {PIXELS_VARIABLE}={DEFAULT_PIXELS} in the environment"
        )
    os.environ[PIXELS_VARIABLE] = str(DEFAULT_PIXELS)
# A refused picture is counted and answered by us; OpenCV's own warning per picture would only flood the log.
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
# numpy's BLAS starts a thread per core when it is imported, and they spin: 1.2 s of processor time on 16 cores. Nothing
# here multiplies matrices that are worth more than one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
