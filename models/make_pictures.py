#!/usr/bin/env python3
"""Writes models/cifar10-test-100.bin: the first ten test pictures of each class, in CIFAR-10's binary layout.

    python models/make_pictures.py CIFAR10_DIR/test_batch.bin models/cifar10-test-100.bin
"""
import sys

RECORD = 3073  # one label byte, then 32 x 32 pixels of red, green and blue
data = open(sys.argv[1], "rb").read()
records = [data[i:i + RECORD] for i in range(0, len(data), RECORD)]
chosen = [r for label in range(10) for r in [r for r in records if r[0] == label][:10]]
open(sys.argv[2], "wb").write(b"".join(chosen))
