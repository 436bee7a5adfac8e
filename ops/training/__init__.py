"""Trains the demo models that ship with Gongwei, from pictures that the synthetic camera draws.

    python -m ops.training --seconds 300 --out DIR

Needs PyTorch (the extra `train`), which nothing else here needs.
"""
