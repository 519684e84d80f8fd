"""Tests against npm capnweb on Node: real processes on loopback, both roles, both codecs, both event loops."""
