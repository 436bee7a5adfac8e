"""Darknet networks that are compared with OpenCV's own importer: the cases, their weights, and what OpenCV answers.

`python -m tests.darknet.make` (in an environment with OpenCV 4) writes the .npz files of this folder anew.
"""
