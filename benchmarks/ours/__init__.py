"""Our two ends, each a program of its own that `benchmarks` starts: a server and a client on capnweb_py."""
