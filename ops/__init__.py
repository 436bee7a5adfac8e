"""The whole line on one machine: `gongwei up`, `demo`, `doctor` and `bench`."""
