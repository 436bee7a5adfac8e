"""The whole line on one machine: `gongwei up`, `demo`, `doctor` and `bench`."""

import workers  # noqa: F401  before any cv2: it sets the limit of pixels that cv2 decodes
